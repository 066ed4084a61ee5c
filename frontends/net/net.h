// The frontend of a network device: the guest's half of "vif", against any backend that speaks xen/io/netif.h.
//
//   net.h            this: the class half, and what an embedding program may choose
//   control.cpp      in the controller: offer, negotiation, keys
//   worker.cpp       in the worker: the queues on the loop
//   transmitter.h    guest to backend      receiver.h    backend to guest      hash_client.h   control ring
//   attachment.h     how programs see it: attachment_tap.h (an interface), attachment_socket.h (a program)
//   journal.h        what outlives a killed worker
//
// What only this folder uses is in caisson::net::frontend.
//
// It trusts its backend as little as a backend trusts it: every answer must match something outstanding, once; only
// pages that hold nothing but frames are ever shared; the first broken rule closes the device until it reconnects.
#pragma once

#include <functional>
#include <memory>

#include "frontends/net/attachment.h"
#include "protocols/net.h"
#include "ring/device.h"

namespace caisson::net {

struct FrontendOptions {
    // At most; the backend may offer fewer. A worker serves them all on one thread, so that more than one pays off
    // only where the other side has threads for them.
    unsigned queues = 1;
    bool split_channels = true;
    bool receive_hash = true;        // with several queues, when the backend has a control ring
    bool multicast_control = false;  // the backend filters; groups are joined with MulticastUpdate
    // What we can receive.
    Offloads offloads{
        .scatter_gather = true, .gso_tcpv4 = true, .gso_tcpv6 = true, .csum_ipv4 = true, .csum_ipv6 = true};
    // Opened once a device. Empty: a TAP "eth<device id>" in the network namespace of the controller.
    std::function<Result<std::unique_ptr<frontend::Attachment>>(const DeviceAddress&, std::optional<Mac>)> attachment =
        {};
};

std::unique_ptr<DeviceControl> make_frontend_control(FrontendOptions options);

// A row of the catalogue: TAP, default options.
ClassHalf frontend_half();

// For DeviceWorker::update(): what the backend's multicast filter lets through. Without multicast_control everything
// is.
struct MulticastUpdate {
    enum class What : std::uint8_t { join, leave, filter, pass_all } what = What::join;
    Mac group;

    std::vector<std::byte> encode() const;
    static Result<MulticastUpdate> decode(std::span<const std::byte> bytes);
};

}  // namespace caisson::net
