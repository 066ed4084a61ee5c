// Ethernet, IP and TCP/UDP headers, read from a private copy of a packet's first bytes; and the translation between
// netif's offload flags and the virtio-net header that a TAP speaks.
//
// netif says "checksum blank" without saying where: the place is found in the headers. Everything here is bounded by
// the span that it is given, and by a fixed number of IPv6 extension headers.
// Sources: RFC 791, 8200, 9293; linux/virtio_net.h.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "protocols/net_packets.h"

namespace caisson::net {

// How much of a packet's start is copied and looked at: Ethernet, a VLAN tag, IPv6 with a few extensions, TCP with
// options. Headers that do not fit are no headers that we offload for (XSA-423).
inline constexpr std::size_t header_bytes = 192;

namespace ethertype {
inline constexpr std::uint16_t ipv4 = 0x0800, arp = 0x0806, vlan = 0x8100, ipv6 = 0x86DD;
}
namespace ip_protocol {
inline constexpr std::uint8_t icmp = 1, tcp = 6, udp = 17, icmpv6 = 58;
}

using Bytes = std::span<const std::byte>;

inline std::uint16_t big16(Bytes at, std::size_t offset) {
    return static_cast<std::uint16_t>(std::to_integer<unsigned>(at[offset]) << 8 |
                                      std::to_integer<unsigned>(at[offset + 1]));
}
inline void put_big16(std::span<std::byte> at, std::size_t offset, std::uint16_t value) {
    at[offset] = static_cast<std::byte>(value >> 8);
    at[offset + 1] = static_cast<std::byte>(value);
}
inline Mac mac_at(Bytes at, std::size_t offset) {
    Mac mac;
    std::memcpy(mac.bytes.data(), at.data() + offset, 6);
    return mac;
}

// What could be recognised; a level that is not there, or is cut off, is 0.
struct Headers {
    Mac destination, source;
    std::uint16_t ethertype = 0;  // behind the VLAN tag, if there is one
    std::uint16_t network = 0;    // offset of the IP (or ARP) header
    std::uint16_t transport = 0;  // offset of the TCP or UDP header: the first fragment only, and whole in the copy
    std::uint16_t end = 0;        // of the last header recognised
    std::uint8_t protocol = 0;    // ip_protocol of `transport`, also when the packet is a later fragment
    bool fragment = false;
    bool ipv4() const { return ethertype == ethertype::ipv4 && network != 0; }
    bool ipv6() const { return ethertype == ethertype::ipv6 && network != 0; }
    bool tcp() const { return transport != 0 && protocol == ip_protocol::tcp; }
    bool udp() const { return transport != 0 && protocol == ip_protocol::udp; }
};

namespace detail {

inline void find_transport(Bytes head, std::size_t offset, Headers& found) {
    found.end = static_cast<std::uint16_t>(offset);
    if (found.fragment) return;
    if (found.protocol == ip_protocol::udp && fits<std::size_t>(offset, 8, head.size())) {
        found.transport = static_cast<std::uint16_t>(offset);
        found.end = static_cast<std::uint16_t>(offset + 8);
    }
    if (found.protocol == ip_protocol::tcp && fits<std::size_t>(offset, 20, head.size())) {
        const std::size_t length = (std::to_integer<std::size_t>(head[offset + 12]) >> 4) * 4;
        if (length < 20 || !fits<std::size_t>(offset, length, head.size())) return;
        found.transport = static_cast<std::uint16_t>(offset);
        found.end = static_cast<std::uint16_t>(offset + length);
    }
}

inline void parse_ipv4(Bytes head, std::size_t offset, Headers& found) {
    if (!fits<std::size_t>(offset, 20, head.size()) || std::to_integer<unsigned>(head[offset]) >> 4 != 4) return;
    const std::size_t length = (std::to_integer<std::size_t>(head[offset]) & 15) * 4;
    if (length < 20 || !fits<std::size_t>(offset, length, head.size())) return;
    found.network = static_cast<std::uint16_t>(offset);
    found.fragment = (big16(head, offset + 6) & 0x3FFF) != 0;  // offset, or more fragments
    found.protocol = std::to_integer<std::uint8_t>(head[offset + 9]);
    find_transport(head, offset + length, found);
}

inline void parse_ipv6(Bytes head, std::size_t offset, Headers& found) {
    if (!fits<std::size_t>(offset, 40, head.size()) || std::to_integer<unsigned>(head[offset]) >> 4 != 6) return;
    found.network = static_cast<std::uint16_t>(offset);
    auto next = std::to_integer<std::uint8_t>(head[offset + 6]);
    std::size_t at = offset + 40;
    for (int extensions = 0; extensions < 8; ++extensions) {  // a bound before the walk
        constexpr std::uint8_t hop_by_hop = 0, routing = 43, fragment = 44, destination = 60;
        if (next != hop_by_hop && next != routing && next != fragment && next != destination) {
            found.protocol = next;
            return find_transport(head, at, found);
        }
        if (!fits<std::size_t>(at, 8, head.size())) return;
        if (next == fragment) found.fragment = (big16(head, at + 2) & 0xFFF9) != 0;
        const std::size_t length = next == fragment ? 8 : (std::to_integer<std::size_t>(head[at + 1]) + 1) * 8;
        next = std::to_integer<std::uint8_t>(head[at]);
        if (found.fragment) {
            found.protocol = next;
            return;
        }
        if (!fits<std::size_t>(at, length, head.size())) return;
        at += length;
    }
}

}  // namespace detail

// `head`: the first bytes of a packet, private; at least an Ethernet header of them.
inline Headers parse_headers(Bytes head) {
    Headers found;
    if (head.size() < min_packet) return found;
    found.destination = mac_at(head, 0);
    found.source = mac_at(head, 6);
    std::size_t offset = min_packet;
    found.ethertype = big16(head, 12);
    if (found.ethertype == ethertype::vlan && head.size() >= offset + 4) {
        found.ethertype = big16(head, offset + 2);
        offset += 4;
    }
    found.end = static_cast<std::uint16_t>(offset);
    if (found.ethertype == ethertype::ipv4) detail::parse_ipv4(head, offset, found);
    if (found.ethertype == ethertype::ipv6) detail::parse_ipv6(head, offset, found);
    if (found.ethertype == ethertype::arp && fits<std::size_t>(offset, 28, head.size()))
        found.network = static_cast<std::uint16_t>(offset);
    return found;
}

// ---- virtio-net header
// -------------------------------------------------------------------------------------------------

struct VirtioHeader {  // virtio_net_hdr: what a TAP with IFF_VNET_HDR puts before each packet
    std::uint8_t flags = 0, gso_type = 0;
    std::uint16_t header_length = 0, gso_size = 0, csum_start = 0, csum_offset = 0;
};
static_assert(sizeof(VirtioHeader) == 10 && Wire<VirtioHeader>);

namespace virtio {
inline constexpr std::uint8_t needs_csum = 1, data_valid = 2;                                           // flags
inline constexpr std::uint8_t gso_none = 0, gso_tcpv4 = 1, gso_udp = 3, gso_tcpv6 = 4, gso_ecn = 0x80;  // gso_type
}  // namespace virtio

inline constexpr std::uint16_t min_gso_size = 48;  // Linux: TCP_MIN_GSO_SIZE

// What both descriptions say about a packet.
struct Offload {
    bool csum_blank = false;      // the checksum field holds the pseudo header's sum, and covers up to the packet's end
    bool data_validated = false;  // nobody needs to look at the checksum
    Gso gso;
};

// Of the pseudo header with this transport length, not complemented: what a blank checksum field holds.
inline std::uint16_t pseudo_header_sum(Bytes head, const Headers& headers, std::uint32_t transport_length) {
    std::uint32_t sum = headers.protocol + (transport_length >> 16) + (transport_length & 0xFFFF);
    const std::size_t from = headers.network + (headers.ipv6() ? 8u : 12u), bytes = headers.ipv6() ? 32 : 8;
    for (std::size_t i = 0; i < bytes; i += 2) sum += big16(head, from + i);
    while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

// netif to virtio. `head` is the private copy of the packet's start; the checksum field in it is filled in when a GSO
// packet came without a blank checksum (some Windows frontends; Linux' netback does the same). nullopt: the packet asks
// for what its headers do not allow, drop it.
inline std::optional<VirtioHeader> to_virtio(const Offload& offload, std::span<std::byte> head, const Headers& headers,
                                             std::uint32_t packet_size) {
    VirtioHeader out;
    const bool gso = offload.gso.type != GsoType::none;
    if (!offload.csum_blank && !gso) {
        if (offload.data_validated) out.flags = virtio::data_valid;
        return out;
    }
    if (!headers.tcp() && (gso || !headers.udp())) return std::nullopt;
    const std::uint16_t field = headers.tcp() ? 16 : 6;
    out.flags = virtio::needs_csum;
    out.csum_start = headers.transport;
    out.csum_offset = field;
    if (!gso) return out;

    if (offload.gso.type == GsoType::tcpv4 ? !headers.ipv4() : !headers.ipv6()) return std::nullopt;
    if (packet_size <= headers.end) return std::nullopt;       // nothing to segment
    if (offload.gso.size < min_gso_size) return std::nullopt;  // or 64 KiB become 65000 packets
    out.gso_type = offload.gso.type == GsoType::tcpv4 ? virtio::gso_tcpv4 : virtio::gso_tcpv6;
    if ((std::to_integer<unsigned>(head[headers.transport + 13u]) & 0x80) != 0) out.gso_type |= virtio::gso_ecn;  // CWR
    out.gso_size = offload.gso.size;
    out.header_length = headers.end;
    if (!offload.csum_blank)
        put_big16(head, headers.transport + std::size_t{field},
                  pseudo_header_sum(head, headers, packet_size - headers.transport));
    return out;
}

// virtio to netif. The header comes from our own kernel (or a switch of ours), the packet from anywhere.
inline std::optional<Offload> from_virtio(const VirtioHeader& header) {
    Offload out{.csum_blank = (header.flags & virtio::needs_csum) != 0,
                .data_validated = (header.flags & (virtio::needs_csum | virtio::data_valid)) != 0};
    switch (header.gso_type & ~virtio::gso_ecn) {
        case virtio::gso_none: return out;
        case virtio::gso_tcpv4: out.gso = {GsoType::tcpv4, header.gso_size}; break;
        case virtio::gso_tcpv6: out.gso = {GsoType::tcpv6, header.gso_size}; break;
        default: return std::nullopt;  // UDP fragmentation: we never offered it
    }
    if (header.gso_size == 0) return std::nullopt;
    return out;
}

}  // namespace caisson::net
