// What a guest may say it is (source addresses), and how much it may send (rate).
#include <catch2/catch.hpp>

#include "backends/net/control.h"
#include "backends/net/filter.h"

using namespace caisson;
using namespace caisson::net;
using namespace caisson::net::backend;

namespace {

using Packet = std::vector<std::byte>;

void append(Packet& packet, std::initializer_list<int> bytes) {
    for (const int byte : bytes) packet.push_back(static_cast<std::byte>(byte));
}
Packet ethernet(int type, int last = 1) {
    Packet p;
    append(p, {2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, last, type >> 8, type & 0xFF});
    return p;
}
Packet ipv4(std::initializer_list<int> source, int protocol = 6, int port = 80) {
    Packet p = ethernet(0x0800);
    append(p, {0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0});
    append(p, source);
    append(p, {8, 8, 8, 8, 0, 68, port >> 8, port & 0xFF, 0, 8, 0, 0});
    return p;
}
Packet arp(std::initializer_list<int> sender, int last = 1) {
    Packet p = ethernet(0x0806);
    append(p, {0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, last});
    append(p, sender);
    append(p, {0, 0, 0, 0, 0, 0, 10, 0, 0, 1});
    return p;
}
Packet ipv6(std::initializer_list<int> start, int end, int next = 6, int icmp = 0) {
    Packet p = ethernet(0x86DD);
    append(p, {0x60, 0, 0, 0, 0, 40, next, 255});
    append(p, start);
    p.resize(22 + 15);
    append(p, {end});
    p.resize(54);
    append(p, {icmp, 0, 0, 0, 0, 0, 0, 0});
    append(p, start);
    p.resize(62 + 15);
    append(p, {end});
    return p;
}

bool passes(const SourceFilter& filter, const Packet& packet) {
    return filter.refuses(packet, parse_headers(packet)) == nullptr;
}

}  // namespace

TEST_CASE("with ip= a guest speaks from its own addresses only, in IPv4, ARP and IPv6") {
    Config config{.has_mac = true, .mac = Mac{{2, 0, 0, 0, 0, 1}}};
    config.addresses = parse_addresses("10.0.0.2/24, fd00::2").value();
    const SourceFilter filter(config);
    CHECK(passes(filter, ipv4({10, 0, 0, 2})));
    CHECK_FALSE(passes(filter, ipv4({10, 0, 0, 3})));
    CHECK(passes(filter, ipv4({0, 0, 0, 0}, 17, 67)));  // DHCP
    CHECK_FALSE(passes(filter, ipv4({0, 0, 0, 0}, 17, 68)));
    CHECK(passes(filter, arp({10, 0, 0, 2})));
    CHECK(passes(filter, arp({0, 0, 0, 0})));
    CHECK_FALSE(passes(filter, arp({10, 0, 0, 3})));
    CHECK_FALSE(passes(filter, arp({10, 0, 0, 2}, 7)));  // under another MAC address
    CHECK(passes(filter, ipv6({0xFD, 0}, 2)));
    CHECK_FALSE(passes(filter, ipv6({0xFD, 0}, 3)));
    CHECK(passes(filter, ipv6({0xFE, 0x80}, 77)));  // never leaves the link
    CHECK(passes(filter, ipv6({0xFD, 0}, 2, 58, 136)));
    Packet liar = ipv6({0xFD, 0}, 2, 58, 136);  // a neighbour advertisement for somebody else
    liar[62 + 15] = std::byte{3};
    CHECK_FALSE(passes(filter, liar));
    CHECK_FALSE(passes(filter, ethernet(0x88B5)));  // what cannot be judged is refused
    CHECK_FALSE(passes(filter, ethernet(0x0800)));
    Packet cut = ipv4({10, 0, 0, 2});
    cut.resize(30);
    CHECK_FALSE(passes(filter, cut));
}

TEST_CASE("without ip= any address passes, but not another's MAC or a group's") {
    const SourceFilter filter(Config{.has_mac = true, .mac = Mac{{2, 0, 0, 0, 0, 1}}});
    CHECK(passes(filter, ipv4({1, 2, 3, 4})));
    CHECK(passes(filter, ethernet(0x88B5)));
    CHECK_FALSE(passes(filter, ethernet(0x88B5, 2)));
    Packet group = ethernet(0x88B5);
    group[6] = std::byte{3};
    CHECK_FALSE(passes(SourceFilter(Config{}), group));
}

TEST_CASE("addresses and rates of an operator are read strictly") {
    CHECK(parse_addresses("").value().v4_count == 0);
    CHECK(parse_addresses("10.0.0.2 10.0.0.3,fe80::1").value().v6_count == 1);
    for (const char* bad : {"10.0.0", "10.0.0.2.3", "host",
                            "1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 "
                            "1.1.1.1 1.1.1.1"})
        CHECK_FALSE(parse_addresses(bad));
    CHECK(parse_rate("1250000,50000").value().bytes == 1250000);
    for (const char* bad : {"", "1", "1,", ",1", "-1,1", "1,1,1", "1 ,1"}) CHECK_FALSE(parse_rate(bad));
}
