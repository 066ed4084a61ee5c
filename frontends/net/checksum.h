// Transport checksums that the backend cannot be asked to finish: netif's "checksum blank" means TCP or UDP over IP,
// where the headers say; a kernel may ask for any place (a tunnel's inner header).
#pragma once

#include <algorithm>
#include <array>

#include "protocols/net_headers.h"
#include "ring/memory.h"

namespace caisson::net::frontend {

// The backend finds the same place in the headers, and takes blank checksums of this family.
inline bool implied(const VirtioHeader& header, const Headers& headers, const Offloads& peer) {
    if (!headers.tcp() && !headers.udp()) return false;
    const bool taken = headers.ipv6() ? peer.csum_ipv6 : peer.csum_ipv4;
    return taken && header.csum_start == headers.transport && header.csum_offset == (headers.tcp() ? 16 : 6);
}

// Finishes the checksum in place. `page_of(i)` is the i-th page of the frame, ours to write. False: it is out of range.
template <class PageOf>
bool complete(const VirtioHeader& header, std::uint32_t length, PageOf&& page_of) {
    const std::uint32_t field = std::uint32_t{header.csum_start} + header.csum_offset;
    if (!fits<std::uint32_t>(field, 2, length) || field % page_size == page_size - 1) return false;
    std::uint64_t sum = 0;
    std::array<std::byte, page_size> chunk;
    for (std::uint32_t at = header.csum_start; at < length;) {
        const std::uint32_t offset = at % page_size, bytes = std::min<std::uint32_t>(length - at, page_size - offset);
        if (!page_of(at / page_size).copy_out(offset, std::span(chunk).first(bytes))) return false;
        for (std::uint32_t i = 0; i < bytes; ++i) {
            const auto byte = std::to_integer<std::uint32_t>(chunk[i]);
            sum += (at + i - header.csum_start) % 2 == 0 ? byte << 8 : byte;
        }
        at += bytes;
    }
    while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    const auto result = static_cast<std::uint16_t>(~sum);
    std::array<std::byte, 2> bytes;
    put_big16(bytes, 0, result == 0 ? 0xFFFF : result);  // 0 would say "no checksum" to UDP
    return page_of(field / page_size).copy_in(field % page_size, bytes);
}

}  // namespace caisson::net::frontend
