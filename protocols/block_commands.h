// Block commands out of slots, and back. Both halves use it: the backend parses what the frontend encodes.
//
// A Command is true: its operation is known, its range lies inside the disk, every count is within its limit, every
// extent lies inside its page. The rules, and what blkback does, are in tests/unit/block_commands.cpp as a reference
// that is compared over all (first_sect, last_sect), all segment counts and all operations.
#pragma once

#include <span>

#include "protocols/block.h"

namespace caisson::block {

enum class Operation : std::uint8_t { read, write, barrier, flush, discard };

// Bytes of one granted page.
struct Extent {
    GrantRef ref{};
    std::uint16_t offset = 0, length = 0;
};

// What the parser checks against. `sectors` may change while connected (resize).
struct Limits {
    std::uint64_t sectors = 0;  // of 512 bytes
    std::uint32_t sector_size = 512;
    std::uint32_t max_indirect = max_indirect_segments;  // 0: not offered
    bool read_only = false, flush = false, barrier = false, discard = false, discard_secure = false;
    bool sectors_are_blocks = false;  // the quirk: the peer counts in sector_size

    static Limits of(const Geometry& disk) {
        return {.sectors = disk.sectors,
                .sector_size = disk.sector_size,
                .read_only = disk.read_only(),
                .flush = disk.flush,
                .barrier = disk.barrier,
                .discard = disk.discard,
                .discard_secure = disk.discard_secure};
    }
};

struct Command {
    Operation operation = Operation::read;
    bool secure = false;         // discard
    std::uint8_t pages = 0;      // indirect: of segments, in `indirect`
    std::uint16_t segments = 0;  // of data; of an indirect request: not looked at yet, see parse_segments()
    std::uint64_t offset = 0;    // on the disk, in bytes
    std::uint64_t length = 0;    // in bytes; of an indirect request: 0, it is the sum of its segments
    std::array<Extent, direct_segments> extents{};
    std::array<GrantRef, indirect_pages> indirect{};

    bool is_indirect() const { return pages != 0; }
    std::span<const Extent> data() const { return std::span(extents).first(is_indirect() ? 0 : segments); }
};

// What every answer needs, even one to a request that makes no sense.
struct Ticket {
    std::uint64_t id = 0;
    std::uint8_t operation = 0;  // of an indirect request the inner one: blkback answers so, and blkfront insists on it
};

struct Rejected {
    std::int16_t status = status::error;
    const char* what = "";  // a string literal
};

struct Call {
    Ticket ticket;
    std::expected<Command, Rejected> command;
};

namespace detail {

struct Head {
    std::uint8_t operation, count;
    std::uint16_t handle;
    std::uint64_t sector;
};

inline std::unexpected<Rejected> reject(const char* what, std::int16_t code = status::error) {
    return std::unexpected(Rejected{code, what});
}

template <class T>
T from_tail(const Tail& tail, std::size_t offset) {
    static_assert(std::is_trivially_copyable_v<T>);
    T out;
    std::memcpy(&out, tail.data() + offset, sizeof out);
    return out;
}

// One segment of a page: where it lies. `unit`: how many bytes first_sect and last_sect count.
inline std::expected<Extent, Rejected> extent(const Segment& segment, const Limits& limits) {
    const std::uint32_t unit = limits.sectors_are_blocks ? limits.sector_size : wire_sector;
    const auto units = static_cast<std::uint32_t>(page_size) / unit;
    if (segment.first_sect > segment.last_sect) return reject("segment ends before it starts");
    if (segment.last_sect >= units) return reject("segment leaves its page");  // XSA-513
    const std::uint32_t length = (segment.last_sect - segment.first_sect + 1u) * unit;
    if (length % limits.sector_size != 0) return reject("segment is no multiple of the disk's sectors");
    return Extent{GrantRef(segment.gref), static_cast<std::uint16_t>(segment.first_sect * unit),
                  static_cast<std::uint16_t>(length)};
}

// Start and length of a transfer, checked against the disk.
inline std::expected<std::uint64_t, Rejected> start(std::uint64_t sector, std::uint64_t length, const Limits& limits) {
    const std::uint64_t unit = limits.sectors_are_blocks ? limits.sector_size : wire_sector;
    if (sector > limits.sectors * wire_sector / unit) return reject("outside of the disk");  // before multiplying
    const std::uint64_t offset = sector * unit;
    if (!fits<std::uint64_t>(offset, length, limits.sectors * wire_sector)) return reject("outside of the disk");
    if (offset % limits.sector_size != 0) return reject("start is no multiple of the disk's sectors");
    return offset;
}

inline std::expected<Operation, Rejected> transfer(std::uint8_t wire, const Limits& limits) {
    switch (wire) {
        case operation::read: return Operation::read;
        case operation::write:
            return limits.read_only ? reject("write to a read-only disk")
                                    : std::expected<Operation, Rejected>(Operation::write);
        default: return reject("unknown operation");
    }
}

inline std::expected<Command, Rejected> parse_direct(const Head& head, const Tail& tail, Operation operation,
                                                     const Limits& limits) {
    if (head.count > direct_segments) return reject("more than 11 segments");  // XSA-513
    const bool may_be_empty = operation == Operation::flush || operation == Operation::barrier;
    if (head.count == 0 && !may_be_empty) return reject("no segments");
    Command command{.operation = operation, .segments = head.count};
    for (unsigned i = 0; i < head.count; ++i) {
        const auto one = extent(from_tail<Segment>(tail, i * sizeof(Segment)), limits);
        if (!one) return std::unexpected(one.error());
        command.extents[i] = *one;
        command.length += one->length;
    }
    if (head.count == 0) return command;  // a flush has no place on the disk
    const auto offset = start(head.sector, command.length, limits);
    if (!offset) return std::unexpected(offset.error());
    command.offset = *offset;
    return command;
}

inline std::expected<Command, Rejected> parse_indirect(const Head& head, const Tail& tail, const Limits& limits) {
    if (limits.max_indirect == 0) return reject("indirect requests are not offered", status::not_supported);
    const auto operation = transfer(head.count, limits);
    if (!operation) return std::unexpected(operation.error());
    const std::uint16_t segments = head.handle;
    if (segments == 0) return reject("no segments");
    if (segments > limits.max_indirect) return reject("more indirect segments than offered");
    const auto offset = start(head.sector, 0, limits);
    if (!offset) return std::unexpected(offset.error());
    Command command{.operation = *operation, .segments = segments, .offset = *offset};
    command.pages = static_cast<std::uint8_t>((segments + segments_a_page - 1) / segments_a_page);
    for (unsigned i = 0; i < command.pages; ++i)
        command.indirect[i] = GrantRef(from_tail<std::uint32_t>(tail, 4 + 4 * i));
    return command;
}

inline std::expected<Command, Rejected> parse_discard(const Head& head, const Tail& tail, const Limits& limits) {
    if (!limits.discard) return reject("discard is not offered", status::not_supported);
    if (limits.read_only) return reject("discard on a read-only disk");
    // The flag is ignored where discard-secure is 0, says blkif.h: but then a promise would be broken silently.
    const bool secure = (head.count & discard_flag_secure) != 0;
    if (secure && !limits.discard_secure) return reject("secure discard is not offered", status::not_supported);
    const auto count = from_tail<std::uint64_t>(tail, 0);
    const std::uint64_t unit = limits.sectors_are_blocks ? limits.sector_size : wire_sector;
    if (count == 0 || count > limits.sectors * wire_sector / unit) return reject("discard outside of the disk");
    const auto offset = start(head.sector, count * unit, limits);
    if (!offset) return std::unexpected(offset.error());
    if (count * unit % limits.sector_size != 0) return reject("discard is no multiple of the disk's sectors");
    return Command{.operation = Operation::discard, .secure = secure, .offset = *offset, .length = count * unit};
}

template <class Request>
std::uint8_t answered_as(const Request& wire) {
    return wire.operation == operation::indirect ? wire.count : wire.operation;
}

inline std::expected<Command, Rejected> parse(const Head& head, const Tail& tail, const Limits& limits) {
    switch (head.operation) {
        case operation::read: return parse_direct(head, tail, Operation::read, limits);
        case operation::write:
        case operation::write_barrier:
            if (limits.read_only) return reject("write to a read-only disk");
            if (head.operation == operation::write) return parse_direct(head, tail, Operation::write, limits);
            if (!limits.barrier) return reject("barriers are not offered", status::not_supported);
            return parse_direct(head, tail, Operation::barrier, limits);
        case operation::flush_diskcache:
            if (!limits.flush) return reject("flush is not offered", status::not_supported);
            if (head.count != 0 && limits.read_only) return reject("write to a read-only disk");
            return parse_direct(head, tail, Operation::flush, limits);
        case operation::discard: return parse_discard(head, tail, limits);
        case operation::indirect: return parse_indirect(head, tail, limits);
        default: return reject("unknown operation", status::not_supported);
    }
}

}  // namespace detail

// ---- Wire to command -----------------------------------------------------------------------------------------------

inline Call parse(const Native::Request& wire, const Limits& limits) {
    return {{wire.id, detail::answered_as(wire)},
            detail::parse({wire.operation, wire.count, wire.handle, wire.sector}, wire.tail, limits)};
}
inline Call parse(const Narrow::Request& wire, const Limits& limits) {
    return {{wire.id.value(), detail::answered_as(wire)},
            detail::parse({wire.operation, wire.count, wire.handle, wire.sector.value()}, wire.tail, limits)};
}

// The segments of an indirect command, in a private copy of its pages: `from` has command.segments of them. Fills
// `extents` and command.length. Nothing is changed when it is rejected.
inline std::expected<void, Rejected> parse_segments(Command& command, std::span<const Segment> from,
                                                    const Limits& limits, std::span<Extent> extents) {
    if (from.size() != command.segments || extents.size() < from.size()) return detail::reject("segments");
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
        const auto one = detail::extent(from[i], limits);
        if (!one) return std::unexpected(one.error());
        extents[i] = *one;
        length += one->length;
    }
    if (!fits<std::uint64_t>(command.offset, length, limits.sectors * wire_sector))
        return detail::reject("outside of the disk");
    command.length = length;
    return {};
}

// ---- Answers -------------------------------------------------------------------------------------------------------

template <class AbiOf>
typename AbiOf::Response answer(const Ticket& ticket, std::int16_t code) {
    typename AbiOf::Response response{};  // every byte, padding too (XSA-216)
    if constexpr (std::is_same_v<AbiOf, Narrow>)
        response.id = Narrow::Word64::of(ticket.id);
    else
        response.id = ticket.id;
    response.operation = ticket.operation;
    response.status = code;
    return response;
}

// An answer that a frontend took. Whether `id` is outstanding is the frontend's to know.
struct Answer {
    std::uint64_t id = 0;
    std::uint8_t operation = 0;
    int error = 0;  // an errno: 0, EIO, EOPNOTSUPP
};
inline Answer parse(const Native::Response& wire) {
    const int error = wire.status == status::okay ? 0 : wire.status == status::not_supported ? EOPNOTSUPP : EIO;
    return {wire.id, wire.operation, error};
}

// ---- Command to wire (our frontend speaks the native layout) -------------------------------------------------------

struct Transfer {
    Operation operation = Operation::read;  // read, write, barrier or flush
    std::uint64_t id = 0, offset = 0;       // bytes
    std::uint32_t unit = wire_sector;       // bytes that a sector on the wire counts (see quirk_logical_blocks)
};

constexpr std::uint8_t wire_operation(Operation operation) {
    switch (operation) {
        case Operation::read: return operation::read;
        case Operation::write: return operation::write;
        case Operation::barrier: return operation::write_barrier;
        case Operation::flush: return operation::flush_diskcache;
        case Operation::discard: return operation::discard;
    }
    return operation::reserved_1;
}

inline Segment segment_of(const Extent& extent, std::uint32_t unit = wire_sector) {
    return {extent.ref.raw, static_cast<std::uint8_t>(extent.offset / unit),
            static_cast<std::uint8_t>((extent.offset + extent.length) / unit - 1), 0};
}

// At most direct_segments extents.
inline Native::Request encode(const Transfer& transfer, std::span<const Extent> extents) {
    Native::Request wire{};
    wire.operation = wire_operation(transfer.operation);
    wire.count = static_cast<std::uint8_t>(extents.size());
    wire.id = transfer.id;
    wire.sector = transfer.offset / transfer.unit;
    for (std::size_t i = 0; i < extents.size(); ++i) {
        const Segment segment = segment_of(extents[i], transfer.unit);
        std::memcpy(wire.tail.data() + i * sizeof segment, &segment, sizeof segment);
    }
    return wire;
}

// `pages` hold `segments` Segments, in order.
inline Native::Request encode_indirect(const Transfer& transfer, std::uint16_t segments,
                                       std::span<const GrantRef> pages) {
    Native::Request wire{};
    wire.operation = operation::indirect;
    wire.count = wire_operation(transfer.operation);
    wire.handle = segments;
    wire.id = transfer.id;
    wire.sector = transfer.offset / transfer.unit;
    for (std::size_t i = 0; i < pages.size() && i < indirect_pages; ++i)
        std::memcpy(wire.tail.data() + 4 + 4 * i, &pages[i].raw, 4);
    return wire;
}

inline Native::Request encode_discard(const Transfer& transfer, std::uint64_t length, bool secure) {
    Native::Request wire{};
    wire.operation = operation::discard;
    wire.count = secure ? discard_flag_secure : 0;
    wire.id = transfer.id;
    wire.sector = transfer.offset / transfer.unit;
    const std::uint64_t count = length / transfer.unit;
    std::memcpy(wire.tail.data(), &count, sizeof count);
    return wire;
}

}  // namespace caisson::block
