// A block frontend against a backend that lies in its answers: every field, every index, any page. Each case ends in
// one of two ways: the request ends once, with the backend's word, or the device is closed, once; never anything else.
#include <catch2/catch.hpp>

#include "tests/support/block_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;
using block::Operation;
namespace op = block::operation;

namespace {

using Alone = BlockFrontendAlone;

// One read on the ring, and what the backend sees of it.
Alone::Request one_read(Alone& front, std::uint64_t cookie = 1) {
    REQUIRE(front.submit(Operation::read, 0, 512, cookie));
    const auto requests = front.taken();
    REQUIRE(requests.size() == 1);
    return requests[0];
}

bool all_zero(std::span<const std::byte> bytes) {
    return std::ranges::all_of(bytes, [](std::byte one) { return one == std::byte{0}; });
}

}  // namespace

TEST_CASE("xsa_376_block answers to ids that are not outstanding close the device") {
    for (const std::uint64_t wrong : {1ull, 2ull, 511ull, 512ull, 0xFFFFull, 0x10000ull, 0x1F0000ull, 0x200000ull,
                                      0xFFFFFFFFull, 0x100000000ull, 0x8000000000000000ull, 0xFFFFFFFFFFFFFFFFull}) {
        Alone front;
        front.open();
        auto answer = Alone::answer_to(one_read(front));
        answer.id ^= wrong;
        front.ring().respond(answer);
        front.poll();
        CHECK(front.faults.size() == 1);
        CHECK(front.faults.at(0).fault == Fault::peer);
        CHECK(front.ended.empty());
    }
}

TEST_CASE("xsa_376_a block request answered twice closes the device and ends once") {
    Alone front;
    front.open();
    REQUIRE(front.submit(Operation::read, 0, 512, 1));
    REQUIRE(front.submit(Operation::read, 512, 512, 2));
    const auto requests = front.taken();
    front.answer(requests[0]);
    front.poll();
    CHECK(!front.broken());
    front.answer(requests[0]);
    front.poll();
    CHECK(front.faults.size() == 1);
    CHECK(front.ended == std::map<std::uint64_t, int>{{1, 0}});
    CHECK(front.twice == 0);
}

TEST_CASE("xsa_376_an answer of another operation closes the device") {
    for (const Operation asked : {Operation::read, Operation::write, Operation::flush, Operation::discard}) {
        for (unsigned operation = 0; operation < 256; ++operation) {
            Alone front;
            front.open();
            REQUIRE(front.submit(asked, 0, asked == Operation::flush ? 0 : 512, 1));
            const auto requests = front.taken();
            auto answer = Alone::answer_to(requests.at(0));
            const bool legal = operation == answer.operation || (asked == Operation::flush && operation == 2);
            answer.operation = static_cast<std::uint8_t>(operation);
            front.ring().respond(answer);
            front.poll();
            CHECK(front.broken() == !legal);
        }
    }
}

TEST_CASE("xsa_376_an answer on the ring of another queue closes the device") {
    Alone front({.queues = 2});
    front.open();
    for (std::uint64_t i = 0; i < 4; ++i) REQUIRE(front.submit(Operation::read, i * 512, 512, i));
    const auto first = front.taken(0), second = front.taken(1);
    REQUIRE(first.size() == 2);
    REQUIRE(second.size() == 2);
    front.answer(first[0], 0, 1);
    front.poll();
    CHECK(front.faults.size() == 1);
}

TEST_CASE("xsa_391_block response indices beyond what is outstanding close the device, and nothing more is read") {
    for (const std::uint32_t ahead : {2u, 3u, 32u, 33u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu}) {
        Alone front;
        front.open();
        (void)one_read(front);
        front.ring().response_producer(ahead);
        front.poll();
        CHECK(front.faults.size() == 1);
        CHECK(front.ended.empty());
        CHECK(!front.path->poll(0, 10, [](Tag, std::uint64_t, int) { FAIL("an answer after the end"); }));
    }
}

TEST_CASE("xsa_376_every status of a block answer ends the request once, with an error that programs know") {
    for (int status = -32768; status <= 32767; status += status < -5 || status > 4 ? 257 : 1) {
        Alone front;
        front.open();
        front.answer(one_read(front), static_cast<std::int16_t>(status));
        front.poll();
        CHECK(!front.broken());
        CHECK(front.ended.at(1) == (status == 0 ? 0 : status == -2 ? EOPNOTSUPP : EIO));
    }
}

TEST_CASE("xsa_365_one failed piece fails the whole request, whatever the others say and in whatever order") {
    Alone front({.features = Alone::disk(2048, block::direct_segments)});
    front.open();
    REQUIRE(front.submit(Operation::read, 0, 40 * page_size, 1));
    const auto pieces = front.taken();
    REQUIRE(pieces.size() == 4);
    front.answer(pieces[2], block::status::error);
    front.answer(pieces[3]);
    front.answer(pieces[0]);
    front.poll();
    CHECK(front.ended.empty());
    front.answer(pieces[1]);
    front.poll();
    CHECK(front.ended.at(1) == EIO);
    CHECK(!front.broken());
}

TEST_CASE("xsa_155_what the backend writes over requests, indices and pages changes nothing of what was asked") {
    Alone front;
    front.open();
    const auto request = one_read(front);
    const SharedSpan page = front.hypervisor.page(Alone::segment(request).gref);
    const std::vector<std::byte> before(page_size, std::byte{1}), after(page_size, std::byte{2});
    REQUIRE(page.copy_in(0, before));
    // Over its own request, and every slot there is, before the answer.
    Alone::Request forged = request;
    forged.operation = op::write, forged.sector = ~0ull, forged.id = 77;
    const SharedSpan ring = front.ring().page();
    for (std::uint32_t at = ring_header_bytes; at + sizeof forged <= ring.size(); at += sizeof forged)
        REQUIRE(ring.copy_in(at, std::as_bytes(std::span(&forged, 1))));
    front.answer(request);
    front.poll();
    REQUIRE(front.ended.at(1) == 0);
    REQUIRE(page.copy_in(0, after));  // too late: the program has its copy
    CHECK(front.last_read == std::vector<std::byte>(512, std::byte{1}));
    const std::uint32_t nonsense = 0x12345678;  // req_prod is ours: nobody reads it back
    REQUIRE(ring.copy_in(0, std::as_bytes(std::span(&nonsense, 1))));
    REQUIRE(front.submit(Operation::read, 512, 512, 2));
    CHECK(front.ring().request_producer() == 2);
    CHECK(front.ring().request(1).sector == 1);
    CHECK(!front.broken());
}

TEST_CASE("xsa_216_no byte of a block request is anything but what blkif.h says") {
    Alone front;
    front.open();
    REQUIRE(front.submit(Operation::write, 512, 512, 1));
    REQUIRE(front.submit(Operation::flush, 0, 0, 2));
    REQUIRE(front.submit(Operation::discard, 0, 4096, 3));
    REQUIRE(front.submit(Operation::read, 0, 20 * page_size, 4));
    const auto requests = front.taken();
    REQUIRE(requests.size() == 4);
    for (const auto& request : requests) CHECK(request.pad == 0);
    CHECK(all_zero(std::span(requests[0].tail).subspan(sizeof(block::Segment))));
    CHECK(Alone::segment(requests[0]).pad == 0);
    CHECK(all_zero(requests[1].tail));
    CHECK(all_zero(std::span(requests[2].tail).subspan(8)));
    CHECK(requests[3].operation == op::indirect);
    CHECK(all_zero(std::span(requests[3].tail).subspan(8)));  // handle, pad and one reference
    std::uint32_t ref = 0;
    std::memcpy(&ref, requests[3].tail.data() + 4, sizeof ref);
    std::vector<std::byte> segments(page_size);
    REQUIRE(front.hypervisor.page(ref).copy_out(0, segments));
    CHECK(all_zero(std::span(segments).subspan(20 * sizeof(block::Segment))));
}

TEST_CASE("xsa_403_only pages of the arena are ever named, and they hold this disk's data and nothing else") {
    Alone front({.queues = 2});
    front.open();
    const auto ours = [&](std::uint32_t ref) {
        return std::ranges::any_of(front.arena.refs(), [&](GrantRef one) { return one.raw == ref; });
    };
    for (std::uint64_t i = 0; i < 20; ++i)
        REQUIRE(front.submit(i % 2 == 0 ? Operation::write : Operation::read, i * 512, 512, i));
    for (unsigned queue = 0; queue < 2; ++queue)
        for (const auto& request : front.taken(queue)) CHECK(ours(Alone::segment(request).gref));
    std::vector<std::byte> all(front.arena.refs().size() * page_size);
    REQUIRE(front.arena.memory().copy_out(0, all));
    CHECK(std::ranges::all_of(all, [](std::byte one) { return one == std::byte{0} || one == std::byte{0x5A}; }));
}

TEST_CASE("xsa_391_a storm of block events without progress costs nothing but its own channel") {
    Alone front({.queues = 2});
    front.start_worker();
    front.turns(5);
    const auto sleeps = front.loop->sleeps();
    unsigned busy = 0;
    for (int i = 0; i < 2000; ++i) {
        (void)front.queues[i % 2].channel.theirs.notify();
        busy += front.loop->turn({}) ? 1u : 0u;
    }
    CHECK(busy < 200);  // most turns find nothing: the channels are not listened to
    CHECK(front.loop->sleeps() == sleeps);
    CHECK(!front.broken());
}

TEST_CASE("xsa_374_a worker says once that its backend is broken, and serves nothing more") {
    Alone front({.fuse = true});
    front.start_worker();
    front.fuse(FUSE_READ, fuse_read_in{.size = 4096});
    front.turns();
    REQUIRE(front.taken().size() == 1);
    front.ring().response_producer(0x80000000u);
    (void)front.queues[0].channel.theirs.notify();
    front.turns(10);
    CHECK(front.faults.size() == 1);
    front.fuse(FUSE_READ, fuse_read_in{.offset = 4096, .size = 4096});
    front.turns(10);
    CHECK(front.faults.size() == 1);
    CHECK(front.taken().empty());
    CHECK(!front.fuse_answer());  // neither an error nor another's data: the next backend answers
}
