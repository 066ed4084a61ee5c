// Slots to packets and headers to offsets: exhaustive where the ranges are small.
#include <catch2/catch.hpp>

#include "protocols/net_packets.h"

using namespace caisson;
using namespace caisson::net;

namespace {

TxRequest tx(unsigned offset, unsigned size, unsigned flags, unsigned id = 0) {
    return {.gref = 8,
            .offset = static_cast<std::uint16_t>(offset),
            .flags = static_cast<std::uint16_t>(flags),
            .id = static_cast<std::uint16_t>(id),
            .size = static_cast<std::uint16_t>(size)};
}

// What a packet promises to whoever gets it.
bool sound(const TxPacket& packet) {
    if (packet.rejected != nullptr) return packet.count == 0;
    std::uint32_t sum = 0;
    for (unsigned i = 0; i < packet.count; ++i) {
        const TxSlice& slice = packet.slices[i];
        if (slice.length == 0 || !fits<std::size_t>(slice.offset, slice.length, page_size)) return false;
        sum += slice.length;
    }
    return packet.multicast_only() ? packet.count == 0
                                   : sum == packet.size && sum >= min_packet && packet.count <= max_slots;
}

}  // namespace

TEST_CASE("every pair of slots with boundary sizes and offsets is a sound packet, a rejected one, or a fault") {
    const unsigned values[] = {0, 1, 13, 14, 15, 100, 4000, 4095, 4096, 4097, 8191, 8192, 65534, 65535};
    unsigned packets = 0, rejected = 0, faults = 0, wrong = 0;
    for (const unsigned size : values)
        for (const unsigned offset : values)
            for (const unsigned size2 : values)
                for (const unsigned offset2 : values) {
                    TxAssembler assembler;
                    auto first = assembler.take(tx(offset, size, tx_flag::more_data), 0);
                    if (!first) {
                        ++faults;
                        continue;
                    }
                    auto second = assembler.take(tx(offset2, size2, 0), 1);
                    if (!second) {
                        ++faults;
                        continue;
                    }
                    wrong += !*second || !sound(assembler.packet());
                    ++(assembler.packet().rejected != nullptr ? rejected : packets);
                }
    CHECK(wrong == 0);
    CHECK(packets > 100);
    CHECK(rejected > 100);
    CHECK(faults > 100);
}

TEST_CASE("18 fragments behind a head are a packet, 19 are refused, a few more break the framing") {
    for (unsigned slots = 1; slots <= fatal_slots + 2; ++slots) {
        TxAssembler assembler;
        Result<bool> result = false;
        for (unsigned i = 0; i < slots && result; ++i)
            result = assembler.take(tx(0, i == 0 ? slots * 20 : 20, i + 1 < slots ? tx_flag::more_data : 0u, i), i);
        INFO(slots);
        if (slots <= max_slots) {
            REQUIRE(result.value());
            CHECK(assembler.packet().rejected == nullptr);
            CHECK(assembler.packet().count == slots);
        } else if (slots < fatal_slots) {
            REQUIRE(result.value());
            CHECK(assembler.packet().rejected != nullptr);
        } else {
            CHECK_FALSE(result);
        }
    }
}

TEST_CASE("extras lie between the head and its fragments and are answered as such") {
    TxAssembler assembler;
    REQUIRE_FALSE(assembler.take(tx(0, 3000, tx_flag::more_data | tx_flag::extra_info, 11), 5).value());
    REQUIRE_FALSE(assembler.take(in_tx_slot(hash_extra({1, 1, 0xDEADBEEF}, true)), 6).value());
    REQUIRE_FALSE(assembler.take(in_tx_slot(gso_extra({GsoType::tcpv6, 1220})), 7).value());
    REQUIRE(assembler.take(tx(10, 1000, 0, 12), 8).value());
    const TxPacket& packet = assembler.packet();
    CHECK(packet.first_index == 5);
    CHECK(packet.slots == 4);
    CHECK(packet.count == 2);
    CHECK(packet.slices[0].length == 2000);
    CHECK(packet.extras.gso.type == GsoType::tcpv6);
    CHECK(packet.extras.gso.size == 1220);
    CHECK(packet.extras.hash.value == 0xDEADBEEF);
    const std::int16_t expected[] = {0, status::null, status::null, 0};
    for (unsigned i = 0; i < 4; ++i) CHECK(packet.response(i, status::okay).status == expected[i]);
    CHECK(packet.response(3, status::okay).id == 12);
}

TEST_CASE("xsa_522 a first rx slot shorter than an Ethernet header is refused with any number of slots") {
    unsigned wrong = 0;
    for (unsigned first = 0; first < 64; ++first)
        for (unsigned slots = 1; slots <= max_slots; ++slots) {
            RxAssembler assembler;
            bool whole = false;
            for (unsigned i = 0; i < slots; ++i)
                whole = assembler
                            .take({.id = 0,
                                   .offset = 0,
                                   .flags = i + 1 < slots ? rx_flag::more_data : std::uint16_t{0},
                                   .status = static_cast<std::int16_t>(i == 0 ? first : 100)},
                                  i)
                            .value();
            wrong += !whole || (assembler.packet().rejected == nullptr) != (first >= min_packet);
        }
    CHECK(wrong == 0);
}

TEST_CASE("rx slots beyond their page, of no bytes, or reported as errors drop their packet and no other") {
    const RxResponse bad[] = {{0, 4096, 0, 20},
                              {0, 0, 0, 4097},
                              {0, 1, 0, 4096},
                              {0, 0, 0, 0},
                              {0, 0, 0, -1},
                              {0, 0, 0, -2},
                              {0, 0, rx_flag::gso_prefix, 60}};
    for (const RxResponse& one : bad) {
        RxAssembler assembler;
        REQUIRE(assembler.take(one, 0).value());
        CHECK(assembler.packet().rejected != nullptr);
        CHECK(assembler.packet().count == 0);
        REQUIRE(assembler.take({0, 0, 0, 60}, 1).value());
        CHECK(assembler.packet().rejected == nullptr);
    }
}

TEST_CASE("MAC addresses are six pairs of digits and nothing else") {
    CHECK(parse_mac("00:16:3e:12:34:5F") == Mac{{0, 0x16, 0x3E, 0x12, 0x34, 0x5F}});
    for (const char* bad : {"", "00:16:3e:12:34", "00:16:3e:12:34:5", "00:16:3e:12:34:5g", "00-16-3e-12-34-56",
                            "00:16:3e:12:34:567", " 0:16:3e:12:34:56"})
        CHECK_FALSE(parse_mac(bad));
}
