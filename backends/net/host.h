// A host is what really moves a vif's packets: a TAP, a switch, nothing. One object a device, in its worker.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "protocols/net_headers.h"
#include "ring/memory.h"

namespace caisson::net::backend {

// A packet on its way, valid during the call that it is passed to. Its bytes are, in this order: `head` (private, at
// least the headers), `shared` (a guest's pages: nobody looks at them, one copy is made), `tail` (private).
struct Frame {
    VirtioHeader virtio;
    Headers headers;
    Bytes head;
    std::span<const SharedSpan> shared;
    Bytes tail;
    std::uint32_t size = 0;  // of all three together
};

// The whole packet in one piece, into frame.size bytes: the one copy that is made of what the guest can still change.
inline void flatten(const Frame& frame, std::span<std::byte> rest) {
    const auto append = [&](Bytes bytes) {
        std::ranges::copy(bytes, rest.begin());  // not memcpy: a part that is not there has no address
        rest = rest.subspan(bytes.size());
    };
    append(frame.head);
    for (const SharedSpan& part : frame.shared) {
        part.copy_out(0, rest.first(part.size()));
        rest = rest.subspan(part.size());
    }
    append(frame.tail);
}

class Host {
  public:
    virtual ~Host() = default;

    // Guest to host. False: dropped.
    virtual bool send(unsigned queue, const Frame& frame) = 0;

    // Host to guest, for hosts that are read: one packet, a virtio header and then its bytes, into `room`. The bytes
    // read, 0 when there is nothing now. Others deliver by themselves (see PacketSink).
    virtual std::size_t receive(unsigned /*queue*/, std::span<const iovec> /*room*/) { return 0; }
    // What to poll for POLLIN when receive() had nothing; -1: never.
    virtual int readable_fd(unsigned /*queue*/) const { return -1; }
};

// Where a switch puts packets for a guest.
class PacketSink {
  public:
    virtual ~PacketSink() = default;
    // False: no room, dropped and counted.
    virtual bool deliver(const Frame& frame) = 0;
};

}  // namespace caisson::net::backend
