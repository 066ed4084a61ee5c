// What the controller tells a net worker about one vif: plain values, all of them checked.
#pragma once

#include <array>
#include <cstdint>

#include "protocols/net.h"

namespace caisson::net::backend {

enum class HostKind : std::uint8_t { tap, network_switch, null };

// The addresses that a guest may use. Empty lists: any.
struct GuestAddresses {
    static constexpr unsigned most = 8;  // of each family
    std::array<std::array<std::uint8_t, 4>, most> v4{};
    std::array<std::array<std::uint8_t, 16>, most> v6{};
    std::uint32_t v4_count = 0, v6_count = 0;
    bool enforced() const { return v4_count + v6_count != 0; }
};

// At most `bytes` in any `microseconds`; 0 bytes: no limit. libxl's key "rate".
struct Rate {
    std::uint64_t bytes = 0, microseconds = 0;
};

struct Config {
    std::uint32_t queues = 1;
    bool split_channels = false;
    bool control_ring = false;
    bool rx_notify = false;  // the frontend notifies when it posts buffers
    bool multicast_control = false;
    bool has_mac = false;  // enforce `mac` as source
    Offloads offloads;     // what the guest can receive
    std::uint32_t mtu = default_mtu;
    Mac mac;
    GuestAddresses addresses;
    Rate rate;
    HostKind host = HostKind::null;
    bool uplink = false;  // switch: this device brings the uplink's TAP with it
    // How long a packet may wait for a guest that does not take it: netback's rx_stall_timeout. Only tests change it.
    std::uint32_t stall_milliseconds = 10'000;
};

// In the handover, in this order: Config; for each queue {tx GrantRef, rx GrantRef, tx channel[, rx channel]}; with
// control_ring {GrantRef, channel}; TAP host {a descriptor for each queue}; switch with uplink {a descriptor}.

}  // namespace caisson::net::backend
