// Headers in a private copy, checksum and GSO flags there and back, and the receive hash.
#include <catch2/catch.hpp>

#include <random>
#include <vector>

#include "protocols/net_control.h"

using namespace caisson;
using namespace caisson::net;

namespace {

using Packet = std::vector<std::byte>;

void append(Packet& packet, std::initializer_list<int> bytes) {
    for (const int byte : bytes) packet.push_back(static_cast<std::byte>(byte));
}

Packet ethernet_header(int type, bool vlan = false) {
    Packet p;
    append(p, {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2});
    if (vlan) append(p, {0x81, 0, 0, 5});
    append(p, {type >> 8, type & 0xFF});
    return p;
}

Packet ipv4(int protocol, int options = 0, int fragment = 0, bool vlan = false) {
    Packet p = ethernet_header(0x0800, vlan);
    append(p, {0x45 + options, 0, 0, 200, 0, 0, fragment >> 8, fragment & 0xFF, 64, protocol, 0, 0});
    append(p, {66, 9, 149, 187, 161, 142, 100, 80});
    p.resize(p.size() + static_cast<std::size_t>(options) * 4);
    return p;
}

Packet ipv6(int next) {
    Packet p = ethernet_header(0x86DD);
    append(p, {0x60, 0, 0, 0, 0, 100, next, 64});
    append(p, {0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7});
    append(p, {0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x00, 0x03, 0, 0, 0, 0, 0, 0, 0, 1});
    return p;
}

void append_tcp(Packet& p, int words = 5) {
    append(p, {2794 >> 8, 2794 & 0xFF, 1766 >> 8,  1766 & 0xFF, 0, 0, 0, 1, 0, 0,
               0,         0,           words << 4, 0x10,        0, 0, 0, 0, 0, 0});
    p.resize(p.size() + static_cast<std::size_t>(words - 5) * 4);
}

}  // namespace

TEST_CASE("TCP is found behind VLAN tags, IPv4 options and IPv6 extensions") {
    Packet plain = ipv4(6);
    append_tcp(plain, 8);
    const Headers a = parse_headers(plain);
    CHECK((a.ipv4() && a.tcp() && a.network == 14 && a.transport == 34 && a.end == 66));

    Packet tagged = ipv4(6, 3, 0x4000, true);
    append_tcp(tagged);
    const Headers b = parse_headers(tagged);
    CHECK((b.ipv4() && b.tcp() && b.network == 18 && b.transport == 50));

    Packet extended = ipv6(0);
    append(extended, {60, 0, 0, 0, 0, 0, 0, 0});                         // hop-by-hop, then
    append(extended, {6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // destination options, then TCP
    append_tcp(extended);
    const Headers c = parse_headers(extended);
    CHECK((c.ipv6() && c.tcp() && c.transport == 14 + 40 + 8 + 16));
}

TEST_CASE("fragments, cut headers and loops of extensions have no transport header") {
    Packet fragment = ipv4(6, 0, 0x2000);
    append_tcp(fragment);
    CHECK((parse_headers(fragment).fragment && !parse_headers(fragment).tcp()));

    Packet whole = ipv4(6);
    append_tcp(whole, 6);
    for (std::size_t size = 0; size < whole.size(); ++size) CHECK_FALSE(parse_headers(Bytes(whole).first(size)).tcp());

    Packet endless = ipv6(0);
    for (int i = 0; i < 17; ++i) append(endless, {0, 0, 0, 0, 0, 0, 0, 0});
    CHECK(parse_headers(endless).transport == 0);

    Packet short_header = ipv4(6);
    append_tcp(short_header);
    short_header[34 + 12] = std::byte{0x40};  // a TCP header of 16 bytes
    CHECK_FALSE(parse_headers(short_header).tcp());
    short_header[14] = std::byte{0x44};  // an IPv4 header of 16 bytes
    CHECK_FALSE(parse_headers(short_header).ipv4());
}

TEST_CASE("no bytes whatsoever lead the parser outside of them") {
    std::mt19937 random(1);
    unsigned wrong = 0;
    for (unsigned round = 0; round < 200000; ++round) {
        std::array<std::byte, header_bytes> bytes;
        for (auto& byte : bytes) byte = static_cast<std::byte>(random());
        const int types[] = {0x0800, 0x86DD, 0x0806, 0x8100};
        put_big16(bytes, 12, static_cast<std::uint16_t>(types[random() % 4]));
        put_big16(bytes, 16, static_cast<std::uint16_t>(types[random() % 4]));
        if (random() % 2 != 0) bytes[14] = static_cast<std::byte>(0x40 | (random() & 0x2F));
        const std::vector<std::byte> exact(bytes.begin(), bytes.begin() + random() % (header_bytes + 1));
        const Headers found = parse_headers(exact);
        if (found.tcp()) wrong += !fits<std::size_t>(found.transport, 20, exact.size()) || found.end > exact.size();
        if (found.udp()) wrong += !fits<std::size_t>(found.transport, 8, exact.size());
        if (found.ipv4()) wrong += !fits<std::size_t>(found.network, 20, exact.size());
        if (found.ipv6()) wrong += !fits<std::size_t>(found.network, 40, exact.size());
    }
    CHECK(wrong == 0);
}

TEST_CASE("netif's flags become a virtio header and come back") {
    Packet packet = ipv4(6);
    append_tcp(packet);
    const Headers headers = parse_headers(packet);
    const Offload asked{.csum_blank = true, .data_validated = true, .gso = {GsoType::tcpv4, 1448}};
    const auto virtio = to_virtio(asked, packet, headers, 60000);
    REQUIRE(virtio);
    CHECK(virtio->flags == virtio::needs_csum);
    CHECK(virtio->gso_type == virtio::gso_tcpv4);
    CHECK((virtio->csum_start == 34 && virtio->csum_offset == 16 && virtio->header_length == 54));
    const auto back = from_virtio(*virtio);
    REQUIRE(back);
    CHECK((back->csum_blank && back->data_validated && back->gso.type == GsoType::tcpv4 && back->gso.size == 1448));

    CHECK_FALSE(to_virtio({.gso = {GsoType::tcpv6, 1448}}, packet, headers, 60000));  // it is IPv4
    CHECK_FALSE(to_virtio({.gso = {GsoType::tcpv4, 1448}}, packet, headers, 54));     // nothing to segment
    CHECK_FALSE(to_virtio({.gso = {GsoType::tcpv4, 47}}, packet, headers, 60000));    // a packet a byte, nearly
    Packet udp = ipv4(17);
    append(udp, {0, 1, 0, 2, 0, 8, 0, 0});
    CHECK(to_virtio({.csum_blank = true}, udp, parse_headers(udp), 42)->csum_offset == 6);
    CHECK_FALSE(to_virtio({.gso = {GsoType::tcpv4, 1448}}, udp, parse_headers(udp), 60000));
    CHECK_FALSE(from_virtio({.gso_type = virtio::gso_udp, .gso_size = 100}));
    CHECK_FALSE(from_virtio({.gso_type = virtio::gso_tcpv4, .gso_size = 0}));
}

TEST_CASE("GSO without a blank checksum gets the pseudo header's sum") {
    Packet packet = ipv4(6);
    append_tcp(packet);
    const Headers headers = parse_headers(packet);
    REQUIRE(to_virtio({.gso = {GsoType::tcpv4, 1000}}, packet, headers, 3034));
    std::uint32_t sum = 6 + 3000 + 0x4209 + 0x95BB + 0xA18E + 0x6450;
    while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    CHECK(big16(packet, 34 + 16) == sum);
}

// Microsoft's "Verifying the RSS hash calculation", which every implementation is measured by.
TEST_CASE("Toeplitz gives the published values") {
    ReceiveHash hash{.algorithm = hash_algorithm::toeplitz, .types = hash_type::all, .key_bytes = 40};
    hash.key = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
                0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
                0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
    Packet v4 = ipv4(6), v6 = ipv6(6);
    append_tcp(v4);
    append_tcp(v6);
    CHECK(hash.of(v4, parse_headers(v4))->value == 0x51ccc178);
    CHECK(hash.of(v4, parse_headers(v4))->type == 1);
    CHECK(hash.of(v6, parse_headers(v6))->value == 0x40207d3d);
    hash.types = hash_type::ipv4 | hash_type::ipv6;
    CHECK(hash.of(v4, parse_headers(v4))->value == 0x323e8fc2);
    CHECK(hash.of(v6, parse_headers(v6))->value == 0x2cc18cd5);
    CHECK(hash.of(v6, parse_headers(v6))->type == 2);
    hash.key_bytes = 0;  // no key: always zero
    CHECK(hash.of(v4, parse_headers(v4))->value == 0);
    hash.types = 0;
    CHECK_FALSE(hash.of(v4, parse_headers(v4)));
}
