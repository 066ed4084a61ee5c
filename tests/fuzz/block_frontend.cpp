// A block frontend's data path against a backend that is the input: answers, indices, bytes in pages, features that
// come and go, deaths of either side, programs that ask meanwhile. Whatever comes: no crash, no report of the
// sanitizers, and no request ends twice.
#include <cstdint>
#include <cstdlib>

#include "tests/fuzz/input.h"
#include "tests/support/block_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;
using block::Operation;

namespace {

struct Played {
    BlockFrontendAlone& front;
    std::vector<std::pair<unsigned, BlockFrontendAlone::Request>> taken;  // and not answered; the queue beside it
    std::uint64_t cookie = 0;
};

void backend_acts(Played& played, Input& in, unsigned action) {
    BlockFrontendAlone& front = played.front;
    const unsigned queue = in.byte() % front.options.queues;
    auto& ring = front.ring(queue);
    switch (action) {
        case 0:
            ring.respond({.id = in.number(),
                          .operation = in.byte(),
                          .pad = in.byte(),
                          .status = static_cast<std::int16_t>(in.word()),
                          .pad2 = 0});
            break;
        case 1: ring.response_producer(in.number()); break;
        case 2:
            for (const auto& request : front.taken(queue)) played.taken.emplace_back(queue, request);
            break;
        case 3: {  // a well-formed answer
            if (played.taken.empty()) break;
            const std::size_t which = in.byte() % played.taken.size();
            const auto [where, request] = played.taken[which];
            front.answer(request, static_cast<std::int16_t>(-(in.byte() % 4)), where);
            played.taken.erase(played.taken.begin() + static_cast<std::ptrdiff_t>(which));
            break;
        }
        case 4: {  // into a page
            const SharedSpan page = front.hypervisor.page(front.arena.refs()[in.word() % front.arena_pages].raw);
            std::array<std::byte, 16> bytes;
            for (std::byte& byte : bytes) byte = static_cast<std::byte>(in.byte());
            (void)page.copy_in(in.word() % 4000, bytes);
            break;
        }
        case 5: {  // into the ring, anywhere
            std::array<std::byte, 4> bytes;
            for (std::byte& byte : bytes) byte = static_cast<std::byte>(in.byte());
            (void)ring.page().copy_in(in.word() % 4092, bytes);
            break;
        }
        case 6: {
            auto features = BlockFrontendAlone::disk(in.word(), 11 + in.byte() % 246);
            const std::uint8_t flags = in.byte();
            features.geometry.flush = (flags & 1) == 0, features.geometry.barrier = (flags & 2) == 0;
            features.geometry.discard = (flags & 4) == 0;
            features.geometry.info = (flags & 8) != 0 ? block::disk_info::read_only : 0;
            features.geometry.sector_size = (flags & 0xF0) == 0xF0 ? 4096 : front.options.features.geometry.sector_size;
            features.unit = front.options.features.unit;
            front.know(features);
            break;
        }
        default: break;
    }
}

void program_acts(Played& played, Input& in) {
    BlockFrontendAlone& front = played.front;
    const std::uint64_t unit = front.options.features.geometry.sector_size;
    if (!front.options.fuse) {
        const auto operation = static_cast<Operation>(in.byte() % 5);
        const std::uint64_t offset = in.word() * unit, length = operation == Operation::flush ? 0 : in.byte() * unit;
        (void)front.submit(operation, offset, length, ++played.cookie);
        return;
    }
    const std::uint32_t offset = in.number() % (4 << 20), size = in.word();
    switch (in.byte() % 4) {
        case 0: front.fuse(FUSE_READ, fuse_read_in{.offset = offset, .size = size}); break;
        case 1:
            front.fuse(FUSE_WRITE, fuse_write_in{.offset = offset, .size = size}, std::vector<std::byte>(size));
            break;
        case 2: front.fuse(FUSE_FSYNC, fuse_fsync_in{}); break;
        case 3: front.fuse(FUSE_FALLOCATE, fuse_fallocate_in{.offset = offset, .length = size, .mode = 3}); break;
    }
}

void one_action(Played& played, Input& in) {
    const unsigned action = in.byte() % 13;
    if (action < 7) return backend_acts(played, in, action);
    switch (action) {
        case 10: played.front.tick(in.byte() % 3); break;
        case 11:  // another worker, on the same rings
            if (!played.front.broken() && in.byte() % 4 == 0) played.front.open(), played.front.twice = 0;
            break;
        case 12:  // another connection
            if (in.byte() % 4 != 0) break;
            played.taken.clear();
            played.front.reconnect();
            break;
        default: program_acts(played, in); break;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input in(data, size);
    const std::uint8_t kind = in.byte();
    BlockFrontendAlone::Options options{.queues = 1u + (kind & 1), .ring_pages = (kind & 2) != 0 ? 2u : 1u};
    options.fuse = (kind & 4) != 0;
    options.features = BlockFrontendAlone::disk(4096, (kind & 8) != 0 ? 11 : 64);
    if ((kind & 16) != 0) options.features.geometry.sector_size = 4096;
    if ((kind & 32) != 0) options.features.unit = options.features.geometry.sector_size;
    BlockFrontendAlone front(options);
    front.open();
    Played played{front, {}};
    for (unsigned actions = 0; !in.empty() && actions < 100; ++actions) {
        one_action(played, in);
        if (actions % 3 != 2 || front.broken()) continue;
        front.poll();
        while (front.options.fuse && front.fuse_answer()) {
        }
    }
    // A life more, with a backend that is honest: everything ends.
    front.reconnect();
    for (int round = 0; round < 2000 && !front.broken(); ++round) {
        front.poll();
        bool any = false;
        for (unsigned queue = 0; queue < options.queues; ++queue)
            for (const auto& request : front.taken(queue)) front.answer(request, 0, queue), any = true;
        while (front.options.fuse && front.fuse_answer()) any = true;
        if (!any && front.requests->in_state(block::frontend::Entry::taken).empty()) break;
    }
    if (front.broken() || front.requests->count() != 0) std::abort();
    return 0;
}
