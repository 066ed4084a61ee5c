// A vendor's device class, part 1 of 3: what crosses the boundary. "vsensor" measures something on a few channels.
#pragma once

#include <string_view>
#include <tuple>

#include "protocols/words.h"
#include "ring/keys.h"

namespace sensor {

using namespace caisson;

inline constexpr std::string_view device_class = "vsensor";
inline constexpr std::uint32_t most_channels = 64;

struct Request {
    std::uint32_t id, channel;
};
struct Response {
    std::uint32_t id;
    std::int32_t status;  // 0, or a negative errno
    std::uint32_t value;
};
struct Ring {
    using Request = sensor::Request;
    using Response = sensor::Response;
};

// What each side writes into its xenstore directory, and the other reads: one table for both.
struct Offer {
    std::uint32_t channels = 0;
    static constexpr auto keys() { return std::tuple{needed("channels", &Offer::channels, 1, most_channels)}; }
};
struct Line {
    GrantRef ring{};
    Port port{};
    static constexpr auto keys() {
        return std::tuple{needed("ring-ref", &Line::ring), needed("event-channel", &Line::port)};
    }
};

// The only ways out of Untrusted: what they return is true.
struct Sample {
    std::uint32_t id, channel;  // channel < channels
};
inline Result<Sample> parse(const Request& raw, std::uint32_t channels) {
    if (raw.channel >= channels) return unsupported("channel");
    return Sample{raw.id, raw.channel};
}
struct Reading {
    std::uint32_t channel, value;
};
inline Result<Reading> parse(const Response& raw, std::uint32_t expected) {
    if (raw.id != expected) return peer_fault("response to request", raw.id, Wanted::exactly, expected);
    if (raw.status != 0) return host_fault(-raw.status, "reading a channel");
    return Reading{raw.id, raw.value};
}

}  // namespace sensor
