// Making and configuring a TAP interface in the driver domain's network namespace: the controller's part of host_tap.h.
// By ioctl and procfs only; needs CAP_NET_ADMIN in that namespace.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backends/net/config.h"
#include "protocols/net_headers.h"
#include "ring/fd.h"

namespace caisson::net::backend {

// Packets that wait in the TAP for a guest that does not take them: bounded here, dropped at the tail (XSA-392).
inline constexpr int tap_queue_packets = 256;

bool interface_name_valid(std::string_view name);  // 1 to 15 of letters, digits, and "._-"
bool bridge_exists(const std::string& name);

class TapInterface {
  public:
    // The interface lives as long as one of its queues.
    static Result<TapInterface> make(const std::string& name);

    const std::string& name() const { return name_; }
    // What the guest can take; decides what the kernel leaves for it to do. TSO only with the checksums of both
    // families: the kernel knows no finer offer.
    Status set_offloads(const Offloads& guest);
    Status set_mtu(std::uint32_t mtu);
    Status join(const std::string& bridge);
    // The guest's addresses are reached through this interface, and ARP for what lies behind us is answered here;
    // `gateway` (may be empty): an interface whose IPv4 address this one has, too.
    Status route(const GuestAddresses& guest, const std::string& gateway);
    Status up();

    // As many as the guest has queues; the first is there from the start.
    Status set_queues(unsigned count);
    const std::vector<Fd>& queues() const { return queues_; }

  private:
    explicit TapInterface(std::string name) : name_(std::move(name)) {}
    Result<Fd> open_queue() const;
    std::string name_;
    std::vector<Fd> queues_;
};

}  // namespace caisson::net::backend
