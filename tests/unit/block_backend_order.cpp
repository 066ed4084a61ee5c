// Barriers, flushes, a flush that failed, replay after a death: what is done before what, and what is said about it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "tests/support/block_backend_alone.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;
namespace status = block::status;
using block::Operation;

namespace {

using Alone = BlockBackendAlone<>;

struct Scripted {
    explicit Scripted(BlockBackendOptions options = {})
        : backend([&] {
              options.scripted = true;
              return options;
          }()),
          page(backend.page()) {}
    void ask(std::uint8_t operation, std::uint64_t id, bool data = true) {
        backend.ring().add(
            block_request(operation, id, id % 64,
                          data ? std::vector<block::Segment>{{page.ref, 0, 0, 0}} : std::vector<block::Segment>{}));
        backend.show_and_turn();
    }
    void finish(std::size_t i, int error = 0) {
        backend.disk.finish(i, error);
        backend.turns();
    }
    std::vector<Operation> pending() const {
        std::vector<Operation> out;
        for (const auto& io : backend.disk.pending) out.push_back(io.operation);
        return out;
    }
    std::vector<std::pair<std::uint64_t, std::int16_t>> answers() {
        std::vector<std::pair<std::uint64_t, std::int16_t>> out;
        for (const auto& one : backend.ring().take_all()) out.emplace_back(one.id, one.status);
        return out;
    }
    Alone backend;
    Alone::Page page;
};
using Answers = std::vector<std::pair<std::uint64_t, std::int16_t>>;
using Ops = std::vector<Operation>;

}  // namespace

TEST_CASE("a barrier waits for all earlier requests, flushes, writes, flushes, and holds all later ones back") {
    Scripted one;
    one.ask(op::write, 1);
    one.ask(op::read, 2);
    one.ask(op::write_barrier, 3);
    one.ask(op::write, 4);
    CHECK(one.pending() == Ops{Operation::write, Operation::read});
    one.finish(1);
    CHECK(one.pending() == Ops{Operation::write});
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::flush});
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::write});
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::flush});
    CHECK(one.answers() == Answers{{2, 0}, {1, 0}});
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::write});  // the one behind it
    one.finish(0);
    CHECK(one.answers() == Answers{{3, 0}, {4, 0}});
}

TEST_CASE("a barrier without data is one flush between earlier and later requests") {
    Scripted one;
    one.ask(op::write, 1);
    one.ask(op::write_barrier, 2, false);
    one.ask(op::read, 3);
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::flush});
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::read});
    one.finish(0);
    CHECK(one.answers() == Answers{{1, 0}, {2, 0}, {3, 0}});
}

TEST_CASE("a flush with data flushes and then writes, beside others") {
    Scripted one;
    one.ask(op::flush_diskcache, 1);
    one.ask(op::read, 2);
    CHECK(one.pending() == Ops{Operation::flush, Operation::read});
    one.finish(0);
    CHECK(one.pending() == Ops{Operation::read, Operation::write});
    CHECK(one.answers().empty());
    one.finish(1);
    one.finish(0);
    CHECK(one.answers() == Answers{{1, 0}, {2, 0}});
}

TEST_CASE("an error in the middle of a barrier is its answer, and what waited goes on") {
    Scripted one;
    one.ask(op::write_barrier, 1);
    one.ask(op::read, 2);
    one.finish(0);          // flush
    one.finish(0, ENOSPC);  // write
    CHECK(one.pending() == Ops{Operation::read});
    one.finish(0);
    CHECK(one.answers() == Answers{{1, status::error}, {2, 0}});
}

TEST_CASE("after a flush that failed no write and no flush is acknowledged, by a successor neither; reads go on") {
    Scripted one({.direct_view = false});
    one.ask(op::write, 1);
    one.ask(op::flush_diskcache, 2, false);
    one.finish(1, EIO);  // the flush
    one.finish(0);       // the write that was under way when it failed
    CHECK(one.answers() == Answers{{2, status::error}, {1, status::error}});
    one.ask(op::write, 3);
    one.ask(op::flush_diskcache, 4, false);
    one.ask(op::write_barrier, 5);
    CHECK(one.pending().empty());
    CHECK(one.answers() == Answers{{3, status::error}, {4, status::error}, {5, status::error}});
    one.ask(op::read, 6);
    one.finish(0);
    CHECK(one.answers() == Answers{{6, 0}});

    one.backend.restart();
    one.ask(op::write, 7);
    CHECK(one.pending().empty());
    CHECK(one.answers() == Answers{{7, status::error}});
    // The frontend has reconnected: another worker, a fresh journal.
    one.backend.worker.reset();
    one.backend.start();
    one.ask(op::write, 8);
    one.finish(0);
    CHECK(one.answers() == Answers{{8, 0}});
}

TEST_CASE("a successor does what was not answered again, oldest first, and answers it once") {
    for (const bool persistent : {false, true}) {
        Scripted one({.direct_view = false, .persistent = persistent});
        Alone::fill(one.page, 5);
        for (unsigned id = 1; id <= 6; ++id) one.ask(op::write, id);
        one.finish(4);
        one.finish(1);
        CHECK(one.answers() == Answers{{5, 0}, {2, 0}});
        one.backend.restart();
        one.backend.turns();
        REQUIRE(one.backend.disk.pending.size() == 4);
        std::vector<std::uint64_t> offsets;
        for (const auto& io : one.backend.disk.pending) offsets.push_back(io.offset / 512);
        CHECK(offsets == std::vector<std::uint64_t>{1, 3, 4, 6});
        one.ask(op::read, 7);
        one.backend.disk.finish_all();
        one.backend.turns();
        CHECK(one.answers() == Answers{{1, 0}, {3, 0}, {4, 0}, {6, 0}, {7, 0}});
        CHECK(one.backend.on_disk(6 * 512, 512) == one.backend.on_disk(1 * 512, 512));
        CHECK_FALSE(one.backend.broken());
    }
}

TEST_CASE("a successor starts nothing before the host says that its predecessor's requests are over") {
    Scripted one;
    one.ask(op::write, 1);
    one.backend.disk.ready = false;
    one.backend.restart();
    one.ask(op::write, 2);
    CHECK(one.pending().empty());
    one.backend.disk.ready = true;
    while (one.pending().empty()) (void)one.backend.loop->turn(std::chrono::milliseconds(5));
    one.backend.turns();
    CHECK(one.pending().size() == 2);
    one.backend.disk.finish_all();
    one.backend.turns();
    CHECK(one.answers() == Answers{{1, 0}, {2, 0}});
}

TEST_CASE("a barrier that was under way at a death is a barrier again") {
    Scripted one;
    one.ask(op::write, 1);
    one.ask(op::write_barrier, 2);
    one.ask(op::write, 3);
    one.finish(0);
    one.finish(0);  // its first flush
    one.backend.restart();
    one.backend.turns();
    CHECK(one.pending() == Ops{Operation::flush});
    while (!one.pending().empty()) one.finish(0);
    CHECK(one.answers() == Answers{{1, 0}, {2, 0}, {3, 0}});
}

TEST_CASE("workers that die again and again lose no write, and answer every request once") {
    std::mt19937 random(5);
    Scripted one({.queues = 2, .ring_pages = 2, .direct_view = false, .persistent = true, .max_persistent = 8});
    Alone& backend = one.backend;
    std::vector<unsigned> asked(2), answered(2);
    std::vector<std::vector<unsigned>> counts(2);
    const auto take = [&] {
        for (unsigned q = 0; q < 2; ++q)
            for (const auto& answer : backend.ring(q).take_all()) {
                REQUIRE(answer.id < counts[q].size());
                REQUIRE(answer.status == status::okay);
                ++counts[q][answer.id];
                ++answered[q];
            }
    };
    for (int round = 0; round < 400; ++round) {
        for (unsigned q = 0; q < 2; ++q) {
            for (unsigned n = random() % 6; n > 0 && asked[q] - answered[q] < backend.ring(q).slots(); --n) {
                const std::uint8_t operation = random() % 10 == 0  ? op::write_barrier
                                               : random() % 5 == 0 ? op::flush_diskcache
                                                                   : op::write;
                backend.ring(q).add(block_request(operation, asked[q]++, q * 64, {{one.page.ref, 0, 0, 0}}));
                counts[q].push_back(0);
            }
            backend.ring(q).show();
        }
        backend.turns(1);
        for (unsigned n = random() % 4; n > 0 && !backend.disk.pending.empty(); --n)
            backend.disk.finish(random() % backend.disk.pending.size());
        if (random() % 2) backend.turns(1);
        take();
        if (random() % 8 == 0) backend.restart();
    }
    while (answered != asked) {
        backend.turns(1);
        backend.disk.finish_all();
        backend.turns(1);
        take();
    }
    for (const auto& queue : counts) CHECK(std::ranges::all_of(queue, [](unsigned count) { return count == 1; }));
    CHECK_FALSE(backend.broken());
}
