// The switch among vifs: learning, flooding, bounds; and what it does for guests that cannot take what others send.
#include <catch2/catch.hpp>

#include "backends/net/host_switch.h"
#include "backends/net/software_offload.h"
#include "tests/support/net_backend_alone.h"

using namespace caisson;
using namespace caisson::net;
using namespace caisson::net::backend;
using caisson::test::ethernet;

namespace {

Mac mac(unsigned n) { return Mac{{2, 0, 0, 0, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)}}; }

struct Sink final : PacketSink {
    bool deliver(const Frame& frame) override {
        ++packets;
        last = frame.headers.source;
        return true;
    }
    unsigned packets = 0;
    Mac last;
};

struct Three {
    bool send(Switch::PortNumber from, Mac source, Mac destination) {
        const auto bytes = ethernet(60, source, destination);
        return with.forward(from, {.headers = parse_headers(bytes), .head = bytes, .size = 60});
    }
    std::unique_ptr<Loop> loop = std::move(*Loop::make());
    Switch with{*loop};
    Sink a, b, c;
    Switch::PortNumber pa = with.add(a), pb = with.add(b), pc = with.add(c);
};

}  // namespace

TEST_CASE("the switch floods what it does not know and learns from whom it hears") {
    Three s;
    CHECK(s.send(s.pa, mac(1), mac(2)));
    CHECK((s.a.packets == 0 && s.b.packets == 1 && s.c.packets == 1));
    CHECK(s.send(s.pb, mac(2), mac(1)));  // known by now
    CHECK((s.a.packets == 1 && s.c.packets == 1));
    CHECK(s.send(s.pc, mac(3), Mac{{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}}));
    CHECK((s.a.packets == 2 && s.b.packets == 2 && s.c.packets == 1));
    CHECK(s.send(s.pa, mac(1), mac(1)));  // to itself: nowhere
    CHECK((s.a.packets == 2 && s.b.packets == 2 && s.c.packets == 1));
}

TEST_CASE("a packet is the same in one piece, whichever of its parts are there") {
    const auto bytes = ethernet(60, mac(1), mac(2));
    const Bytes all(bytes);
    for (const std::size_t head : {std::size_t{0}, std::size_t{14}, all.size()}) {
        Frame frame{.size = 60};
        if (head > 0) frame.head = all.first(head);
        if (head < all.size()) frame.tail = all.subspan(head);
        std::vector<std::byte> piece(frame.size);
        flatten(frame, piece);
        CHECK(std::ranges::equal(piece, all));
    }
}

TEST_CASE("a port that leaves takes its addresses along, and old addresses are forgotten") {
    Three s;
    (void)s.send(s.pa, mac(1), mac(9));
    (void)s.send(s.pb, mac(2), mac(9));
    CHECK(s.with.addresses() == 2);
    s.with.remove(s.pa);
    CHECK(s.with.addresses() == 1);
    CHECK_FALSE(s.send(s.pa, mac(1), mac(2)));
    s.with.age(Switch::Clock::now() + Switch::ageing + std::chrono::seconds(1));
    CHECK(s.with.addresses() == 0);
}

TEST_CASE("one guest cannot fill the table") {
    Three s;
    for (unsigned i = 0; i < 10000; ++i) (void)s.send(s.pa, mac(100 + i), mac(9));
    CHECK(s.with.addresses() == Switch::most_addresses_a_guest);
    (void)s.send(s.pb, mac(2), mac(9));
    CHECK(s.with.addresses() == Switch::most_addresses_a_guest + 1);
    // An address that moves is charged to its new port, and given back when that one goes.
    (void)s.send(s.pb, mac(100), mac(9));
    s.with.remove(s.pb);
    CHECK(s.with.addresses() == Switch::most_addresses_a_guest - 1);
}

TEST_CASE("a packet between guests does not cross more than one uplink, and comes back from it to no uplink") {
    Three s;
    int one[2], two[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, one) == 0);
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, two) == 0);
    const Fd far_one(one[0]), far_two(two[0]);
    (void)s.with.add_uplink(Fd(one[1]));
    (void)s.with.add_uplink(Fd(two[1]));
    (void)s.send(s.pa, mac(1), mac(9));
    std::array<std::byte, 200> bytes;
    const auto got = [&](const Fd& fd) { return ::read(fd.get(), bytes.data(), bytes.size()); };
    CHECK(got(far_one) == 70);
    CHECK(got(far_two) < 0);
    std::vector<std::byte> from_outside(10);
    const auto packet = ethernet(60, mac(9), mac(1));
    from_outside.insert(from_outside.end(), packet.begin(), packet.end());
    REQUIRE(::write(far_two.get(), from_outside.data(), from_outside.size()) == 70);
    for (int i = 0; i < 3; ++i) (void)s.loop->turn({});
    CHECK(s.a.packets == 1);
    CHECK(s.a.last == mac(9));
    CHECK(got(far_one) < 0);
}

TEST_CASE("a large TCP packet is cut into segments with right lengths, sequence numbers, flags and checksums") {
    for (const bool v6 : {false, true}) {
        const std::size_t network = v6 ? 40 : 20, headers_end = 14 + network + 20, size = headers_end + 5000;
        auto packet = ethernet(size, mac(1), mac(2), v6 ? 0x86DD : 0x0800);
        std::memset(packet.data() + 14, 0, network + 20);
        packet[14] = v6 ? std::byte{0x60} : std::byte{0x45};
        packet[14 + (v6 ? 6 : 9)] = std::byte{6};
        packet[14 + network + 12] = std::byte{0x50};
        packet[14 + network + 13] = std::byte{0x99};  // CWR, ACK, PSH, FIN
        packet[14 + network + 6] = std::byte{0xFF}, packet[14 + network + 7] = std::byte{0xF0};
        std::vector<std::vector<std::byte>> segments;
        REQUIRE(
            segment_tcp(packet, {.gso_size = 1448}, [&](Bytes one) { segments.emplace_back(one.begin(), one.end()); }));
        REQUIRE(segments.size() == 4);
        std::vector<std::byte> payload;
        for (std::size_t i = 0; i < 4; ++i) {
            const auto& one = segments[i];
            const Headers headers = parse_headers(one);
            const std::uint32_t sequence =
                big16(one, headers.transport + 4u) * 65536u + big16(one, headers.transport + 6u);
            CHECK(sequence == 0xFFF0 + i * 1448);
            const auto flags = std::to_integer<int>(one[headers.transport + 13u]);
            CHECK(flags == (i == 0 ? 0x90 : i == 3 ? 0x19 : 0x10));
            CHECK(big16(one, 14 + (v6 ? 4u : 2u)) == one.size() - 14 - (v6 ? 40 : 0));
            if (!v6) CHECK(internet_sum(std::span(one).subspan(14, 20)) == 0xFFFF);
            const auto behind = static_cast<std::uint32_t>(one.size() - headers.transport);
            CHECK(internet_sum(std::span(one).subspan(headers.transport), pseudo_header_sum(one, headers, behind)) ==
                  0xFFFF);
            payload.insert(payload.end(), one.begin() + static_cast<std::ptrdiff_t>(headers_end), one.end());
        }
        CHECK(std::equal(payload.begin(), payload.end(), packet.begin() + static_cast<std::ptrdiff_t>(headers_end)));
        CHECK_FALSE(segment_tcp(packet, {.gso_size = 1}, [](Bytes) { FAIL("5000 packets out of one"); }));
        CHECK_FALSE(segment_tcp(packet, {.gso_size = 0}, [](Bytes) { FAIL("endless"); }));
    }
}

TEST_CASE("a checksum outside of its packet is not filled in") {
    std::vector<std::byte> packet(60);
    CHECK(complete_checksum(packet, {.csum_start = 34, .csum_offset = 16}));
    CHECK_FALSE(complete_checksum(packet, {.csum_start = 60, .csum_offset = 0}));
    CHECK_FALSE(complete_checksum(packet, {.csum_start = 50, .csum_offset = 9}));
    CHECK_FALSE(complete_checksum(packet, {.csum_start = 65535, .csum_offset = 65535}));
}
