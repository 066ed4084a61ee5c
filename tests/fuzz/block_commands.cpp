// Any bytes as block requests and segments, through the parsers alone: what comes back is true, and both ABIs say the
// same.
#include <cstdlib>
#include <vector>

#include "protocols/block_commands.h"

using namespace caisson;
using namespace caisson::block;

namespace {

void require(bool truth) {
    if (!truth) std::abort();
}

template <class T>
T at(const std::uint8_t* data, std::size_t offset) {
    T out;
    std::memcpy(&out, data + offset, sizeof out);
    return out;
}

void check(const Extent& extent, const Limits& limits) {
    require(extent.length > 0 && extent.length % limits.sector_size == 0);
    require(fits<std::size_t>(extent.offset, extent.length, page_size));
}

void check(Command& command, const Limits& limits, const std::uint8_t* data, std::size_t size) {
    std::uint64_t sum = 0;
    for (const Extent& extent : command.data()) check(extent, limits), sum += extent.length;
    require(fits<std::uint64_t>(command.offset, command.length, limits.sectors * wire_sector));
    require(command.offset % limits.sector_size == 0);
    require(!limits.read_only || command.operation == Operation::read ||
            (command.operation == Operation::flush && command.segments == 0));
    if (!command.is_indirect()) {
        require(command.operation == Operation::discard || sum == command.length);
        return;
    }
    require(command.segments >= 1 && command.segments <= limits.max_indirect && command.pages <= indirect_pages);
    std::vector<Segment> segments(command.segments);
    std::memcpy(segments.data(), data, std::min(size, segments.size() * sizeof(Segment)));
    std::vector<Extent> extents(command.segments);
    if (!parse_segments(command, segments, limits, extents)) return;
    for (const Extent& extent : extents) check(extent, limits), sum += extent.length;
    require(sum == command.length && fits<std::uint64_t>(command.offset, sum, limits.sectors * wire_sector));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 16) return 0;
    const std::uint8_t bits = data[0];
    const Limits limits{.sectors = at<std::uint64_t>(data, 1) >> (data[9] % 64),
                        .sector_size = (bits & 1) != 0 ? 4096u : 512u,
                        .max_indirect = (bits & 2) != 0 ? max_indirect_segments : 0u,
                        .read_only = (bits & 4) != 0,
                        .flush = (bits & 8) != 0,
                        .barrier = (bits & 16) != 0,
                        .discard = (bits & 32) != 0,
                        .discard_secure = (bits & 64) != 0,
                        .sectors_are_blocks = (bits & 128) != 0};
    // A disk of more bytes than 64 bits count does not exist: the host would have to say so.
    if (limits.sectors > ~std::uint64_t{0} / wire_sector) return 0;
    for (std::size_t offset = 10; offset + sizeof(Native::Request) <= size; offset += sizeof(Native::Request)) {
        const auto wide = at<Native::Request>(data, offset);
        Call call = parse(wide, limits);
        const Call same = parse(Narrow::Request{wide.operation, wide.count, wide.handle, Narrow::Word64::of(wide.id),
                                                Narrow::Word64::of(wide.sector), wide.tail},
                                limits);
        require(call.ticket.id == wide.id && same.ticket.id == wide.id);
        require(call.command.has_value() == same.command.has_value());
        if (!call.command) {
            require(call.command.error().status == same.command.error().status);
            continue;
        }
        require(call.command->offset == same.command->offset && call.command->length == same.command->length);
        check(*call.command, limits, data + offset, size - offset);
    }
    return 0;
}
