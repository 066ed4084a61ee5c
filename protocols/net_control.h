// The control ring's requests, and the receive hash that they set up. Source: xen/io/netif.h, "Control messages" and
// "Hash types".
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "protocols/net_headers.h"

namespace caisson::net {

// ---- Requests ----

enum class ControlType : std::uint16_t {  // XEN_NETIF_CTRL_TYPE_*
    get_hash_flags = 1,
    set_hash_flags = 2,
    set_hash_key = 3,
    get_hash_mapping_size = 4,
    set_hash_mapping_size = 5,
    set_hash_mapping = 6,
    set_hash_algorithm = 7,
    get_gref_mapping_size = 8,
    add_gref_mapping = 9,
    del_gref_mapping = 10,
};
namespace control_status {  // XEN_NETIF_CTRL_STATUS_*
inline constexpr std::uint32_t success = 0, not_supported = 1, invalid_parameter = 2, buffer_overflow = 3;
}
namespace hash_type {  // XEN_NETIF_CTRL_HASH_TYPE_*, as bits
inline constexpr std::uint32_t ipv4 = 1, ipv4_tcp = 2, ipv6 = 4, ipv6_tcp = 8, all = 15;
}
namespace hash_algorithm {
inline constexpr std::uint32_t none = 0, toeplitz = 1;
}

// A control request whose numbers are within their limits. `refused`: answer with this status, do nothing.
struct ControlCall {
    std::uint16_t id = 0;
    std::uint16_t raw_type = 0;  // echoed
    ControlType type{};
    std::uint32_t value = 0;  // flags, algorithm, or mapping size
    GrantRef page{};          // key or mapping table
    std::uint16_t count = 0;  // key bytes (<= max_hash_key) or entries (<= max_hash_mapping)
    std::uint16_t first = 0;  // first entry; first + count <= the mapping size
    std::optional<std::uint32_t> refused;

    ControlResponse response(std::uint32_t result, std::uint32_t data = 0) const {
        return {id, raw_type, result, data};
    }
};

// `mapping_size`: what SET_HASH_MAPPING_SIZE last asked for. One beyond max_hash_mapping, which is never agreed to,
// counts as that: the limits of a ControlCall hold whatever is said here.
inline ControlCall parse(const ControlRequest& raw, std::uint32_t mapping_size) {
    using enum ControlType;
    ControlCall c{.id = raw.id, .raw_type = raw.type, .type = static_cast<ControlType>(raw.type)};
    switch (c.type) {
        case get_hash_flags:
        case get_hash_mapping_size: break;
        case set_hash_flags:
            c.value = raw.data[0];
            if ((c.value & ~hash_type::all) != 0) c.refused = control_status::invalid_parameter;
            break;
        case set_hash_algorithm:
            c.value = raw.data[0];
            if (c.value > hash_algorithm::toeplitz) c.refused = control_status::invalid_parameter;
            break;
        case set_hash_key:
            if (raw.data[1] > max_hash_key) {
                c.refused = control_status::buffer_overflow;
            } else {
                c.page = GrantRef(raw.data[0]);
                c.count = static_cast<std::uint16_t>(raw.data[1]);
            }
            break;
        case set_hash_mapping_size:
            c.value = raw.data[0];
            if (c.value > max_hash_mapping) c.refused = control_status::invalid_parameter;
            break;
        case set_hash_mapping:
            if (raw.data[1] > max_hash_mapping) {
                c.refused = control_status::buffer_overflow;
            } else if (!fits<std::uint32_t>(raw.data[2], raw.data[1],
                                            std::min<std::uint32_t>(mapping_size, max_hash_mapping))) {  // XSA-270
                c.refused = control_status::invalid_parameter;
            } else {
                c.page = GrantRef(raw.data[0]);
                c.count = static_cast<std::uint16_t>(raw.data[1]);
                c.first = static_cast<std::uint16_t>(raw.data[2]);
            }
            break;
        default: c.refused = control_status::not_supported;  // static grants, and what does not exist
    }
    return c;
}

// ---- The hash
// ----------------------------------------------------------------------------------------------------------

// Key octets that were not given are zero: netif.h, SET_HASH_KEY.
inline std::uint32_t toeplitz(std::span<const std::uint8_t> key, Bytes data) {
    auto key_byte = [&](std::size_t i) { return i < key.size() ? std::uint64_t{key[i]} : 0; };
    std::uint64_t window = 0;  // its upper 32 bits are the left-most of the shifted key
    for (std::size_t i = 0; i < 8; ++i) window = window << 8 | key_byte(i);
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < data.size(); ++i) {
        for (unsigned bit = 0x80; bit != 0; bit >>= 1, window <<= 1)
            if ((std::to_integer<unsigned>(data[i]) & bit) != 0) hash ^= window;
        window |= key_byte(i + 8);
    }
    return static_cast<std::uint32_t>(hash >> 32);
}

// What the frontend asked for over the control ring. All values are within their limits, so it can lie in a journal as
// it is; valid() tells whether it still makes sense there.
struct ReceiveHash {
    std::uint32_t algorithm = hash_algorithm::none;
    std::uint32_t types = 0;                        // hash_type
    std::uint32_t key_bytes = 0, mapping_size = 0;  // mapping_size 0: modulo the number of queues
    std::array<std::uint8_t, max_hash_key> key{};
    std::array<std::uint8_t, max_hash_mapping> mapping{};  // queue numbers

    bool enabled() const { return algorithm == hash_algorithm::toeplitz && types != 0; }
    bool valid(unsigned queues) const {
        for (std::uint8_t queue : mapping)
            if (queue >= queues) return false;
        return algorithm <= hash_algorithm::toeplitz && (types & ~hash_type::all) == 0 && key_bytes <= max_hash_key &&
               mapping_size <= max_hash_mapping;
    }
    unsigned queue(std::uint32_t hash, unsigned queues) const {
        return mapping_size != 0 ? mapping[hash % mapping_size] : hash % queues;
    }
    // The hash of the "maximal" type that is enabled and that the packet has; nullopt: none.
    std::optional<PacketHash> of(Bytes head, const Headers& headers) const {
        if (!enabled() || !(headers.ipv4() || headers.ipv6())) return std::nullopt;
        const bool v6 = headers.ipv6();
        const bool tcp = headers.tcp() && (types & (v6 ? hash_type::ipv6_tcp : hash_type::ipv4_tcp)) != 0;
        if (!tcp && (types & (v6 ? hash_type::ipv6 : hash_type::ipv4)) == 0) return std::nullopt;
        std::array<std::byte, 36> input;
        const std::size_t addresses = v6 ? 32 : 8;
        std::memcpy(input.data(), head.data() + headers.network + (v6 ? 8 : 12), addresses);
        if (tcp) std::memcpy(input.data() + addresses, head.data() + headers.transport, 4);
        const auto bit = static_cast<std::uint8_t>((v6 ? 2 : 0) + (tcp ? 1 : 0));
        return PacketHash{bit, static_cast<std::uint8_t>(algorithm),
                          toeplitz(std::span(key).first(key_bytes), Bytes(input).first(addresses + (tcp ? 4 : 0)))};
    }
};

}  // namespace caisson::net
