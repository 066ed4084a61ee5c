// What a kernel does behind a TAP, for a guest behind a switch that cannot do it itself: filling in checksums, cutting
// a large TCP packet into segments. In private memory only. Sources: RFC 1071, RFC 9293; Linux' skb_segment() for which
// flags go into which segment.
#pragma once

#include <array>
#include <cstring>
#include <span>

#include "protocols/net_headers.h"

namespace caisson::net::backend {

inline constexpr std::size_t most_segments = 128;  // a segment size of 1 would make 65535 packets out of one

// RFC 1071, not complemented.
inline std::uint16_t internet_sum(Bytes bytes, std::uint32_t sum = 0) {
    for (; bytes.size() >= 2; bytes = bytes.subspan(2)) {
        sum += big16(bytes, 0);
        if (sum >> 31 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    }
    if (!bytes.empty()) sum += std::to_integer<std::uint32_t>(bytes[0]) << 8;
    while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

// The field holds the pseudo header's sum already (needs_csum). False: it is not inside the packet.
inline bool complete_checksum(std::span<std::byte> packet, const VirtioHeader& virtio) {
    const std::size_t field = std::size_t{virtio.csum_start} + virtio.csum_offset;
    if (virtio.csum_start >= packet.size() || !fits<std::size_t>(field, 2, packet.size())) return false;
    const auto sum = static_cast<std::uint16_t>(~internet_sum(packet.subspan(virtio.csum_start)));
    put_big16(packet, field, sum == 0 ? std::uint16_t{0xFFFF} : sum);
    return true;
}

// Calls emit(packet) for each segment, complete with its checksums. False, and nothing emitted, when it cannot be cut.
template <class Emit>
bool segment_tcp(Bytes packet, const VirtioHeader& virtio, Emit&& emit) {
    const Headers headers = parse_headers(packet.first(std::min(packet.size(), header_bytes)));
    const std::size_t payload = packet.size() - std::min<std::size_t>(headers.end, packet.size());
    if (!headers.tcp() || virtio.gso_size == 0 || payload > most_segments * virtio.gso_size) return false;
    std::array<std::byte, header_bytes + 0xFFFF> buffer;
    std::memcpy(buffer.data(), packet.data(), headers.end);
    const std::span head = std::span(buffer).first(headers.end);
    const auto flags = head[headers.transport + 13u];
    const std::uint32_t sequence =
        static_cast<std::uint32_t>(big16(head, headers.transport + 4u)) << 16 | big16(head, headers.transport + 6u);
    const std::uint16_t id = headers.ipv4() ? big16(head, headers.network + 4u) : std::uint16_t{0};

    std::uint16_t number = 0;
    for (std::size_t at = 0; at < payload; at += virtio.gso_size, ++number) {
        const std::size_t length = std::min<std::size_t>(virtio.gso_size, payload - at);
        const std::span one = std::span(buffer).first(headers.end + length);
        std::memcpy(one.data() + headers.end, packet.data() + headers.end + at, length);
        constexpr std::byte fin_psh{0x09}, cwr{0x80};
        std::byte now = flags;
        if (at + length < payload) now &= ~fin_psh;
        if (at != 0) now &= ~cwr;
        one[headers.transport + 13u] = now;
        const auto here = static_cast<std::uint32_t>(sequence + at);
        put_big16(one, headers.transport + 4u, static_cast<std::uint16_t>(here >> 16));
        put_big16(one, headers.transport + 6u, static_cast<std::uint16_t>(here));
        const auto behind_network = static_cast<std::uint16_t>(one.size() - headers.network);
        if (headers.ipv4()) {
            put_big16(one, headers.network + 2u, behind_network);
            put_big16(one, headers.network + 4u, static_cast<std::uint16_t>(id + number));
            put_big16(one, headers.network + 10u, 0);
            const std::size_t ip_bytes = (std::to_integer<std::size_t>(one[headers.network]) & 15) * 4;
            const std::uint16_t sum = internet_sum(one.subspan(headers.network, ip_bytes));
            put_big16(one, headers.network + 10u, static_cast<std::uint16_t>(~sum));
        } else {
            put_big16(one, headers.network + 4u, static_cast<std::uint16_t>(behind_network - 40));
        }
        const auto transport_bytes = static_cast<std::uint32_t>(one.size() - headers.transport);
        put_big16(one, headers.transport + 16u, pseudo_header_sum(one, headers, transport_bytes));
        complete_checksum(one, {.csum_start = headers.transport, .csum_offset = 16});
        emit(one);
    }
    return true;
}

}  // namespace caisson::net::backend
