// Frames between two guests through both halves and the switch: every size, both directions, with and without each
// transport and offload, content compared byte by byte.
#include <catch2/catch.hpp>

#include "tests/support/net_pair.h"

using namespace caisson;
using namespace caisson::test;

namespace {

void check_crossing(NetWorld& world, NetGuest& from, NetGuest& to, std::size_t size, std::uint32_t seed,
                    unsigned queue = 0) {
    const auto sent = test_frame(to.mac, from.mac, size, seed);
    REQUIRE(from.send(sent, {}, queue));
    std::optional<NetGuest::Frame> got;
    REQUIRE(world.until([&] { return (got = to.receive()).has_value(); }));
    if (got->bytes != sent) FAIL("a frame of " << size << " bytes came as " << got->bytes.size() << " others");
}

struct Two {
    explicit Two(NetOptions options = {}) : a(world.guest(options)), b(world.guest(options)) {
        REQUIRE(world.until([&] { return a.connected() && b.connected(); }));
        // The switch learns both addresses.
        check_crossing(world, a, b, 60, 1);
        check_crossing(world, b, a, 60, 2);
    }
    NetWorld world;
    NetGuest &a, &b;
};

}  // namespace

TEST_CASE("net: every frame size from 60 to 9018 bytes crosses unchanged, both ways") {
    Two two;
    for (std::size_t size = 60; size <= 9018; size += size < 200 || size % 4096 > 4050 || size % 4096 < 40 ? 1 : 53) {
        check_crossing(two.world, two.a, two.b, size, static_cast<std::uint32_t>(size));
        check_crossing(two.world, two.b, two.a, size, static_cast<std::uint32_t>(size) + 7);
    }
    CHECK(!two.a.front->complaint);
    CHECK(!two.b.back->complaint);
}

TEST_CASE("net: GSO frames of up to 64 KiB cross whole, with their checksum and segment size") {
    Two two;
    for (const bool v6 : {false, true})
        for (const std::size_t size :
             {std::size_t{2000}, std::size_t{16384}, std::size_t{40000}, std::size_t{65000}, std::size_t{65535}}) {
            const std::uint16_t transport = 14 + (v6 ? 40 : 20);
            const auto frame = tcp_frame(two.b.mac, two.a.mac, size, v6, static_cast<std::uint32_t>(size));
            const net::VirtioHeader header{.flags = net::virtio::needs_csum,
                                           .gso_type = v6 ? net::virtio::gso_tcpv6 : net::virtio::gso_tcpv4,
                                           .header_length = static_cast<std::uint16_t>(transport + 20),
                                           .gso_size = 1448,
                                           .csum_start = transport,
                                           .csum_offset = 16};
            REQUIRE(two.a.send(frame, header));
            std::optional<NetGuest::Frame> got;
            REQUIRE(two.world.until([&] { return (got = two.b.receive()).has_value(); }));
            CHECK(got->bytes == frame);
            CHECK(got->header.flags == net::virtio::needs_csum);
            CHECK(got->header.gso_type == header.gso_type);
            CHECK(got->header.gso_size == 1448);
            CHECK(got->header.csum_start == transport);
            CHECK(got->header.csum_offset == 16);
        }
}

TEST_CASE("net: a checksum left blank stays blank, a validated one stays validated") {
    Two two;
    for (const bool v6 : {false, true}) {
        const std::uint16_t transport = 14 + (v6 ? 40 : 20);
        const auto frame = tcp_frame(two.b.mac, two.a.mac, 500, v6, 5);
        REQUIRE(two.a.send(frame, {.flags = net::virtio::needs_csum, .csum_start = transport, .csum_offset = 16}));
        std::optional<NetGuest::Frame> got;
        REQUIRE(two.world.until([&] { return (got = two.b.receive()).has_value(); }));
        CHECK(got->bytes == frame);
        CHECK(got->header.flags == net::virtio::needs_csum);
        CHECK(got->header.csum_start == transport);

        REQUIRE(two.a.send(frame, {.flags = net::virtio::data_valid}));
        REQUIRE(two.world.until([&] { return (got = two.b.receive()).has_value(); }));
        CHECK(got->header.flags == net::virtio::data_valid);
    }
}

TEST_CASE("net: a checksum in a place that the headers do not name is finished by the frontend") {
    Two two;
    auto frame = test_frame(two.b.mac, two.a.mac, 401, 9);  // no IP: only the virtio header knows where
    frame[114] = frame[115] = std::byte{};
    std::uint32_t sum = 0;
    for (std::size_t i = 100; i < frame.size(); ++i)
        sum += std::to_integer<std::uint32_t>(frame[i]) << ((i - 100) % 2 == 0 ? 8 : 0);
    while (sum >> 16 != 0) sum = (sum & 0xFFFF) + (sum >> 16);
    REQUIRE(two.a.send(frame, {.flags = net::virtio::needs_csum, .csum_start = 100, .csum_offset = 14}));
    std::optional<NetGuest::Frame> got;
    REQUIRE(two.world.until([&] { return (got = two.b.receive()).has_value(); }));
    CHECK((got->header.flags & net::virtio::needs_csum) == 0);
    CHECK(net::big16(got->bytes, 114) == static_cast<std::uint16_t>(~sum));
    net::put_big16(got->bytes, 114, 0);
    CHECK(got->bytes == frame);
}

TEST_CASE("net: one to eight queues, shared and split channels, all carry frames") {
    for (const unsigned queues : {1u, 2u, 3u, 8u})
        for (const bool split : {false, true}) {
            Two two({.frontend = {.queues = queues, .split_channels = split}});
            auto& store = two.world.dom0();
            const std::string first = two.a.front_path + (queues == 1 ? "" : "/queue-0");
            CHECK(need(store.read(first + "/event-channel-tx")).has_value() == split);
            CHECK(need(store.read(first + "/event-channel")).has_value() == !split);
            CHECK(need(store.read(two.a.front_path + "/tx-ring-ref")).has_value() == (queues == 1));
            CHECK(need(store.read(two.a.front_path + "/queue-" + std::to_string(queues - 1) + "/rx-ring-ref"))
                      .has_value() == (queues > 1));
            for (unsigned queue = 0; queue < queues; ++queue)
                for (const std::size_t size : {60u, 1514u, 9000u}) {
                    check_crossing(two.world, two.a, two.b, size, queue + 10, queue);
                    check_crossing(two.world, two.b, two.a, size, queue + 20, queue);
                }
        }
}

TEST_CASE("net: with several queues the backend hashes flows to queues as the frontend asked") {
    Two two({.frontend = {.queues = 4}});
    two.world.steps(50);  // the control ring's conversation
    std::map<std::size_t, unsigned> used;
    for (std::uint32_t flow = 0; flow < 64; ++flow) {
        auto frame = tcp_frame(two.b.mac, two.a.mac, 200, false, flow);
        net::put_big16(frame, 34, static_cast<std::uint16_t>(1000 + flow * 7));
        REQUIRE(two.a.send(frame, {.flags = net::virtio::data_valid}));
        bool came = false;
        REQUIRE(two.world.until([&] {
            for (std::size_t queue = 0; queue < 4 && !came; ++queue) {
                std::array<std::byte, 4096> buffer;
                if (::read(two.b.ends.queue[queue].get(), buffer.data(), buffer.size()) > 0) ++used[queue], came = true;
            }
            return came;
        }));
    }
    CHECK(used.size() == 4);  // 64 flows, 4 queues
}

TEST_CASE("net: each feature can be missing on the frontend's side") {
    for (const net::Offloads offloads : {net::Offloads{}, net::Offloads{.scatter_gather = true},
                                         net::Offloads{.scatter_gather = true, .csum_ipv4 = true, .csum_ipv6 = true}}) {
        Two two({.frontend = {.offloads = offloads}});
        check_crossing(two.world, two.a, two.b, 1514, 3);
        if (!offloads.scatter_gather) continue;
        check_crossing(two.world, two.a, two.b, 9000, 4);
    }
}

TEST_CASE("net: many frames in flight arrive once, in order, and complete rings wrap many times") {
    Two two;
    std::uint32_t sent = 0, received = 0;
    constexpr std::uint32_t frames = 5000;
    while (received < frames) {
        while (sent < frames && sent - received < 100 &&
               two.a.send(test_frame(two.b.mac, two.a.mac, 60 + sent % 3000, sent)))
            ++sent;
        two.world.step();
        while (const auto got = two.b.receive()) {
            REQUIRE(got->bytes == test_frame(two.b.mac, two.a.mac, 60 + received % 3000, received));
            ++received;
        }
    }
    CHECK(two.world.until([&] { return two.a.front->stats().queue[0].responses.get() > frames; }));
}
