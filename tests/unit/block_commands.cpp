// The parser of block requests against a reference that was written from blkif.h alone: sector by sector, with no
// arithmetic that could be wrong in the same way. Every (first_sect, last_sect), every count, every operation.
#include <algorithm>
#include <catch2/catch.hpp>
#include <optional>
#include <random>

#include "protocols/block_commands.h"

using namespace caisson;
using namespace caisson::block;

namespace {

struct Expected {
    std::int16_t status = status::okay;
    std::uint64_t offset = 0, length = 0;
    bool operator==(const Expected&) const = default;
};

// How many of the page's eight sectors of 512 bytes a segment covers, one by one; nothing where it is not a segment.
std::optional<unsigned> covered(const Segment& segment, const Limits& limits) {
    const unsigned unit = limits.sectors_are_blocks ? limits.sector_size : 512;
    if (segment.first_sect > segment.last_sect) return std::nullopt;
    unsigned count = 0;
    for (unsigned sector = segment.first_sect; sector <= segment.last_sect; ++sector)
        for (unsigned byte = sector * unit; byte < (sector + 1) * unit; byte += 512, ++count)
            if (byte >= 4096) return std::nullopt;
    if (count * 512 % limits.sector_size != 0) return std::nullopt;
    return count;
}

Expected place(std::uint64_t sector, std::uint64_t bytes, const Limits& limits) {
    const Expected wrong{.status = status::error};
    const unsigned __int128 unit = limits.sectors_are_blocks ? limits.sector_size : 512;
    const unsigned __int128 begin = sector * unit, end = begin + bytes;
    if (end > static_cast<unsigned __int128>(limits.sectors) * 512) return wrong;
    if (begin % limits.sector_size != 0) return wrong;
    return {.offset = static_cast<std::uint64_t>(begin), .length = bytes};
}

Expected reference(const Native::Request& wire, const Limits& limits) {
    const Expected wrong{.status = status::error}, unknown{.status = status::not_supported};
    switch (wire.operation) {
        case 0:  // BLKIF_OP_READ
            break;
        case 1:  // BLKIF_OP_WRITE
            if (limits.read_only) return wrong;
            break;
        case 2:  // BLKIF_OP_WRITE_BARRIER
            if (limits.read_only) return wrong;
            if (!limits.barrier) return unknown;
            break;
        case 3:  // BLKIF_OP_FLUSH_DISKCACHE
            if (!limits.flush) return unknown;
            if (limits.read_only && wire.count != 0) return wrong;
            break;
        case 5: {  // BLKIF_OP_DISCARD
            if (!limits.discard) return unknown;
            if (limits.read_only) return wrong;
            if ((wire.count & 1) != 0 && !limits.discard_secure) return unknown;
            std::uint64_t count = 0;
            std::memcpy(&count, wire.tail.data(), 8);
            const unsigned __int128 bytes =
                static_cast<unsigned __int128>(count) * (limits.sectors_are_blocks ? limits.sector_size : 512);
            if (count == 0 || bytes > static_cast<unsigned __int128>(limits.sectors) * 512) return wrong;
            if (bytes % limits.sector_size != 0) return wrong;
            return place(wire.sector, static_cast<std::uint64_t>(bytes), limits);
        }
        case 6:  // BLKIF_OP_INDIRECT: only its head is judged here
            if (limits.max_indirect == 0) return unknown;
            if (wire.count > 1 || (wire.count == 1 && limits.read_only)) return wrong;
            if (wire.handle == 0 || wire.handle > limits.max_indirect) return wrong;
            return place(wire.sector, 0, limits);
        default: return unknown;
    }
    if (wire.count > 11) return wrong;
    if (wire.count == 0) return wire.operation >= 2 ? Expected{} : wrong;
    std::uint64_t bytes = 0;
    for (unsigned i = 0; i < wire.count; ++i) {
        Segment segment;
        std::memcpy(&segment, wire.tail.data() + 8 * i, 8);
        const auto sectors = covered(segment, limits);
        if (!sectors) return wrong;
        bytes += *sectors * 512;
    }
    return place(wire.sector, bytes, limits);
}

Narrow::Request narrow_of(const Native::Request& wide) {
    return {wide.operation, wide.count, wide.handle, Narrow::Word64::of(wide.id), Narrow::Word64::of(wide.sector),
            wide.tail};
}

Expected result_of(const Call& call) {
    if (!call.command) return {.status = call.command.error().status};
    return {.offset = call.command->offset, .length = call.command->length};
}

void put(Native::Request& wire, unsigned i, const Segment& segment) {
    std::memcpy(wire.tail.data() + 8 * i, &segment, sizeof segment);
}

// Both ABIs, against the reference. Counts instead of an assertion each: there are millions.
struct Comparison {
    std::uint64_t cases = 0, different = 0, accepted = 0;
    void operator()(const Native::Request& wire, const Limits& limits) {
        const Expected expected = reference(wire, limits);
        const Call wide = parse(wire, limits), narrow = parse(narrow_of(wire), limits);
        // blkback: req_operation, which is the inner one of an indirect request
        const auto answered_as = wire.operation == operation::indirect ? wire.count : wire.operation;
        ++cases;
        accepted += expected.status == status::okay;
        const bool same = result_of(wide) == expected && result_of(narrow) == expected && wide.ticket.id == wire.id &&
                          narrow.ticket.id == wire.id && wide.ticket.operation == answered_as &&
                          narrow.ticket.operation == answered_as;
        different += !same;
    }
};

std::vector<Limits> kinds_of_disk() {
    std::vector<Limits> out;
    for (const std::uint32_t size : {512u, 4096u})
        for (const bool blocks : {false, true})
            for (unsigned bits = 0; bits < 64; ++bits)
                out.push_back({.sectors = 64,
                               .sector_size = size,
                               .max_indirect = (bits & 32) != 0 ? max_indirect_segments : 0u,
                               .read_only = (bits & 1) != 0,
                               .flush = (bits & 2) != 0,
                               .barrier = (bits & 4) != 0,
                               .discard = (bits & 8) != 0,
                               .discard_secure = (bits & 16) != 0,
                               .sectors_are_blocks = blocks});
    return out;
}

}  // namespace

TEST_CASE("xsa_513 every first_sect and last_sect is judged as the reference does, in every place of a request") {
    Comparison compare;
    for (const std::uint32_t size : {512u, 4096u})
        for (const bool blocks : {false, true})
            for (const unsigned at : {0u, 5u, 10u})
                for (unsigned first = 0; first < 256; ++first)
                    for (unsigned last = 0; last < 256; ++last) {
                        Native::Request wire{};
                        wire.operation = operation::write;
                        wire.count = 11;
                        for (unsigned i = 0; i < 11; ++i)
                            put(wire, i, {i, 0, static_cast<std::uint8_t>(blocks && size == 4096 ? 0 : 7), 0});
                        put(wire, at, {1, static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(last), 0xFFFF});
                        compare(wire, {.sectors = 4096, .sector_size = size, .sectors_are_blocks = blocks});
                    }
    CHECK(compare.cases == 2u * 2 * 3 * 65536);
    CHECK(compare.different == 0);
    CHECK(compare.accepted > 0);
}

TEST_CASE(
    "xsa_513 every operation with every count of segments is judged as the reference does, on every kind of disk") {
    Comparison compare;
    for (const Limits& limits : kinds_of_disk())
        for (unsigned operation = 0; operation < 256; ++operation) {
            if (operation > 8 && operation % 31 != 0) continue;  // unknown ones are all alike
            for (unsigned count = 0; count < 256; ++count) {
                Native::Request wire{};
                wire.operation = static_cast<std::uint8_t>(operation);
                wire.count = static_cast<std::uint8_t>(count);
                wire.handle = 3;
                wire.id = 0xABCDEF0123456789ull;
                for (unsigned i = 0; i < 11; ++i) put(wire, i, {i + 1, 0, 0, 0});
                compare(wire, limits);
            }
        }
    CHECK(compare.different == 0);
    CHECK(compare.accepted > 1000);
}

TEST_CASE("every count of indirect segments is judged as the reference does") {
    Comparison compare;
    for (const std::uint32_t offered : {0u, 1u, 16u, max_indirect_segments})
        for (unsigned inner = 0; inner < 8; ++inner)
            for (unsigned segments = 0; segments < 65536; ++segments) {
                Native::Request wire{};
                wire.operation = operation::indirect;
                wire.count = static_cast<std::uint8_t>(inner);
                wire.handle = static_cast<std::uint16_t>(segments);
                compare(wire, {.sectors = 64, .max_indirect = offered});
            }
    CHECK(compare.different == 0);
    CHECK(compare.accepted == 2 * (1 + 16 + 256));
}

TEST_CASE("no start and no length reaches beyond the disk, however they are chosen") {
    std::mt19937_64 random(3);
    Comparison compare;
    const std::uint64_t edges[] = {0,          1,          7,          8,          63,
                                   64,         65,         1ull << 32, 1ull << 52, (1ull << 55) - 8,
                                   1ull << 55, 1ull << 61, 1ull << 63, ~0ull - 7,  ~0ull};
    for (const Limits& limits : kinds_of_disk())
        for (const std::uint64_t sector : edges)
            for (const std::uint64_t count : edges)
                for (const std::uint8_t operation : {0, 1, 2, 3, 5, 6}) {
                    Native::Request wire{};
                    wire.operation = operation;
                    wire.sector = sector + random() % 3;
                    wire.count = operation == 5 ? random() % 2 : 1 + random() % 11;
                    wire.handle = 1;
                    for (unsigned i = 0; i < 11; ++i) put(wire, i, {i, 0, 7, 0});
                    if (operation == 5) std::memcpy(wire.tail.data(), &count, sizeof count);
                    compare(wire, limits);
                }
    CHECK(compare.different == 0);
    CHECK(compare.accepted > 0);
}

TEST_CASE("the segments of an indirect request are judged one by one, and their sum against the disk") {
    for (const std::uint32_t size : {512u, 4096u}) {
        const Limits limits{.sectors = 2048, .sector_size = size};
        for (unsigned count = 1; count <= max_indirect_segments; ++count) {
            Native::Request wire{};
            wire.operation = operation::indirect;
            wire.handle = static_cast<std::uint16_t>(count);
            wire.sector = 2048 - 8 * count;
            std::vector<Segment> segments(count, Segment{1, 0, 7, 0});
            std::vector<Extent> extents(max_indirect_segments);
            Command command = *parse(wire, limits).command;
            REQUIRE(command.pages == 1);
            REQUIRE(parse_segments(command, segments, limits, extents));
            REQUIRE(command.length == count * page_size);
            // One sector more than the disk has, and each single segment wrong in turn.
            wire.sector += 8;
            Command beyond = *parse(wire, limits).command;
            CHECK_FALSE(parse_segments(beyond, segments, limits, extents));
            const unsigned k = count * 7 % count;
            for (const Segment& bad : {Segment{1, 1, 0, 0}, Segment{1, 0, 8, 0}, Segment{1, 255, 255, 0}}) {
                auto with = segments;
                with[k] = bad;
                Command one = command;
                CHECK_FALSE(parse_segments(one, with, limits, extents));
            }
        }
    }
}

TEST_CASE("what our frontend encodes is what the backend parses") {
    std::mt19937_64 random(4);
    for (int i = 0; i < 20000; ++i) {
        const Limits limits{.sectors = 1 << 20,
                            .sector_size = random() % 2 ? 512u : 4096u,
                            .flush = true,
                            .barrier = true,
                            .discard = true};
        std::vector<Extent> extents;
        std::uint64_t length = 0;
        for (unsigned n = 1 + random() % direct_segments; n > 0; --n) {
            const std::uint32_t blocks = page_size / limits.sector_size, first = random() % blocks;
            const std::uint32_t count = 1 + random() % (blocks - first);
            extents.push_back({GrantRef(static_cast<std::uint32_t>(random())),
                               static_cast<std::uint16_t>(first * limits.sector_size),
                               static_cast<std::uint16_t>(count * limits.sector_size)});
            length += extents.back().length;
        }
        const Operation operations[] = {Operation::read, Operation::write, Operation::barrier, Operation::flush};
        const Transfer transfer{operations[random() % 4], random(), random() % 1000 * 4096, wire_sector};
        const Call call = parse(encode(transfer, extents), limits);
        REQUIRE(call.command);
        CHECK(call.ticket.id == transfer.id);
        CHECK(call.command->operation == transfer.operation);
        CHECK(call.command->offset == transfer.offset);
        CHECK(call.command->length == length);
        REQUIRE(call.command->data().size() == extents.size());
        CHECK(std::ranges::equal(call.command->data(), extents, [](const Extent& a, const Extent& b) {
            return a.ref == b.ref && a.offset == b.offset && a.length == b.length;
        }));
    }
}
