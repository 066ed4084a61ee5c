// Two guests on one switch that take different things: what one sends large and with its checksum blank, the other,
// who offered neither, gets in segments and complete.
#include <catch2/catch.hpp>

#include "backends/net/software_offload.h"
#include "tests/support/net_pair.h"

using namespace caisson;
using namespace caisson::test;

namespace {

bool transport_checksum_right(net::Bytes frame) {
    const net::Headers headers = net::parse_headers(frame.first(std::min(frame.size(), net::header_bytes)));
    const auto bytes = static_cast<std::uint32_t>(frame.size() - headers.transport);
    const std::uint16_t pseudo = net::pseudo_header_sum(frame, headers, bytes);
    return headers.tcp() && net::backend::internet_sum(frame.subspan(headers.transport), pseudo) == 0xFFFF;
}

}  // namespace

TEST_CASE("net: a guest without GSO and checksum offload gets complete segments from one that has both") {
    NetWorld world;
    NetGuest& a = world.guest();
    NetOptions plain;
    plain.frontend.offloads = {};
    NetGuest& b = world.guest(plain);
    REQUIRE(world.until([&] { return a.connected() && b.connected(); }));
    for (const bool v6 : {false, true}) {
        const std::uint16_t transport = 14 + (v6 ? 40 : 20);
        const auto large = tcp_frame(b.mac, a.mac, 20000, v6, 3);
        REQUIRE(a.send(large, {.flags = net::virtio::needs_csum,
                               .gso_type = v6 ? net::virtio::gso_tcpv6 : net::virtio::gso_tcpv4,
                               .header_length = static_cast<std::uint16_t>(transport + 20),
                               .gso_size = 1448,
                               .csum_start = transport,
                               .csum_offset = 16}));
        std::vector<std::byte> payload;
        while (payload.size() < large.size() - transport - 20) {
            std::optional<NetGuest::Frame> got;
            REQUIRE(world.until([&] { return (got = b.receive()).has_value(); }));
            CHECK(got->header.flags == 0);
            CHECK(got->header.gso_type == net::virtio::gso_none);
            CHECK(got->bytes.size() <= transport + 20u + 1448u);
            CHECK(transport_checksum_right(got->bytes));
            payload.insert(payload.end(), got->bytes.begin() + transport + 20, got->bytes.end());
        }
        CHECK(std::equal(payload.begin(), payload.end(), large.begin() + transport + 20));

        const auto small = tcp_frame(b.mac, a.mac, 600, v6, 4);
        REQUIRE(a.send(small, {.flags = net::virtio::needs_csum, .csum_start = transport, .csum_offset = 16}));
        std::optional<NetGuest::Frame> got;
        REQUIRE(world.until([&] { return (got = b.receive()).has_value(); }));
        CHECK(got->bytes.size() == 600);
        CHECK(transport_checksum_right(got->bytes));
    }
}
