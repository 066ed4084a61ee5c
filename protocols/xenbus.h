// XenbusState and the keys that every device has, whatever its class. Source: xen/io/xenbus.h; the key names that no
// header has (backend-id, online, ...) are what libxl writes (docs/misc/xenstore-paths.pandoc).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace caisson {

enum class XenbusState : std::uint8_t {
    unknown = 0,  // no node, or a value that is none of the following
    initialising = 1,
    init_wait = 2,    // early initialisation done; waits for the peer, or for hotplug
    initialised = 3,  // waits for a connection
    connected = 4,
    closing = 5,  // about to be torn down, or an error
    closed = 6,
    reconfiguring = 7,
    reconfigured = 8,
};
inline constexpr std::array all_xenbus_states{
    XenbusState::unknown,     XenbusState::initialising,  XenbusState::init_wait,
    XenbusState::initialised, XenbusState::connected,     XenbusState::closing,
    XenbusState::closed,      XenbusState::reconfiguring, XenbusState::reconfigured,
};

constexpr std::string_view name(XenbusState state) {
    constexpr std::array<std::string_view, 9> names{"Unknown",     "Initialising",  "InitWait",
                                                    "Initialised", "Connected",     "Closing",
                                                    "Closed",      "Reconfiguring", "Reconfigured"};
    return names[static_cast<std::size_t>(state)];
}

// The store's text to a state: exactly one digit '0' to '8'; everything else is unknown.
constexpr XenbusState parse_xenbus_state(std::string_view text) {
    if (text.size() != 1 || text[0] < '0' || text[0] > '8') return XenbusState::unknown;
    return static_cast<XenbusState>(text[0] - '0');
}

}  // namespace caisson
