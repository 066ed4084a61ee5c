// Requests through the real worker: data, features and statuses, in place, mapped and bounced.
#include <catch2/catch.hpp>

#include "tests/support/block_backend_alone.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;
namespace status = block::status;

namespace {

using Alone = BlockBackendAlone<>;

// How data is reached: see backends/block/queue.h.
std::vector<BlockBackendOptions> all_paths() {
    std::vector<BlockBackendOptions> out;
    for (const bool scripted : {false, true})
        for (const bool direct : {false, true})
            for (const bool persistent : {false, true})
                out.push_back({.scripted = scripted, .direct_view = direct, .persistent = persistent});
    return out;
}

// One request, to its end.
std::int16_t ask(Alone& backend, const block::Native::Request& request) {
    backend.disk.at_once = true;
    backend.ring().add(request);
    backend.show_and_turn();
    const auto answers = backend.ring().take_all();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].id == request.id);
    CHECK(answers[0].operation == (request.operation == op::indirect ? request.count : request.operation));
    REQUIRE_FALSE(backend.broken());
    return answers[0].status;
}

}  // namespace

TEST_CASE("what is written to a block device is on the disk, and is read back, on every path") {
    for (const BlockBackendOptions& options : all_paths()) {
        Alone backend(options);
        const auto from = backend.page(), to = backend.page();
        Alone::fill(from, 1);
        REQUIRE(ask(backend, block_request(op::write, 7, 16, {whole_page(from.ref)})) == status::okay);
        CHECK(backend.on_disk(16 * 512, page_size) == Alone::bytes(from));
        REQUIRE(ask(backend, block_request(op::read, 8, 16, {whole_page(to.ref)})) == status::okay);
        CHECK(Alone::bytes(to) == Alone::bytes(from));
    }
}

TEST_CASE("parts of pages go where the sectors say, and the rest of the pages stays as it was") {
    for (const BlockBackendOptions& options : all_paths()) {
        Alone backend(options);
        const auto first = backend.page(), second = backend.page(), target = backend.page();
        Alone::fill(first, 1), Alone::fill(second, 2), Alone::fill(target, 3);
        REQUIRE(ask(backend, block_request(op::write, 1, 5, {{first.ref, 2, 3, 0}, {second.ref, 7, 7, 0}})) ==
                status::okay);
        const auto one = Alone::bytes(first), two = Alone::bytes(second), before = Alone::bytes(target);
        const auto disk = backend.on_disk(5 * 512, 3 * 512);
        CHECK(std::equal(disk.begin(), disk.begin() + 1024, one.begin() + 1024));
        CHECK(std::equal(disk.begin() + 1024, disk.end(), two.begin() + 7 * 512));
        REQUIRE(ask(backend, block_request(op::read, 2, 6, {{target.ref, 4, 5, 0}})) == status::okay);
        const auto after = Alone::bytes(target);
        CHECK(std::equal(after.begin(), after.begin() + 4 * 512, before.begin()));
        CHECK(std::equal(after.begin() + 4 * 512, after.begin() + 6 * 512, disk.begin() + 512));
        CHECK(std::equal(after.begin() + 6 * 512, after.end(), before.begin() + 6 * 512));
    }
}

TEST_CASE("an indirect request of 256 segments moves a mebibyte") {
    for (const BlockBackendOptions& options : all_paths()) {
        Alone backend([&] {
            BlockBackendOptions with = options;
            with.max_persistent = 300;
            return with;
        }());
        const auto table = backend.page();
        std::vector<Alone::Page> pages;
        std::vector<block::Segment> segments;
        for (unsigned i = 0; i < 256; ++i) {
            pages.push_back(backend.page());
            Alone::fill(pages.back(), i);
            segments.push_back(whole_page(pages.back().ref));
        }
        (void)table.memory.copy_in(0, std::as_bytes(std::span(segments)));
        REQUIRE(ask(backend, block_indirect(op::write, 1, 0, 256, table.ref)) == status::okay);
        for (unsigned i = 0; i < 256; i += 17)
            CHECK(backend.on_disk(i * page_size, page_size) == Alone::bytes(pages[i]));
        const auto last = Alone::bytes(pages[255]);
        for (auto& page : pages) page.memory.clear();
        REQUIRE(ask(backend, block_indirect(op::read, 2, 0, 256, table.ref)) == status::okay);
        CHECK(Alone::bytes(pages[255]) == last);
    }
}

TEST_CASE("a frontend of the 32-bit ABI is served like any other") {
    BlockBackendAlone<block::Narrow> backend;
    const auto page = backend.page();
    backend.fill(page, 9);
    backend.ring().add(narrow(block_request(op::write, 0x1234567890ull, 3, {whole_page(page.ref)})));
    backend.show_and_turn();
    const auto answer = backend.ring().take();
    REQUIRE(answer);
    CHECK(answer->id.value() == 0x1234567890ull);
    CHECK(answer->status == status::okay);
    CHECK(backend.on_disk(3 * 512, page_size) == backend.bytes(page));
}

TEST_CASE("rings of 1 to 16 pages and 1 to 8 queues answer everything that fits into them") {
    for (const unsigned pages : {1u, 2u, 4u, 8u, 16u}) {
        for (const unsigned queues : {1u, 2u, 8u}) {
            Alone backend({.queues = queues, .ring_pages = pages});
            const auto page = backend.page();
            for (unsigned q = 0; q < queues; ++q) {
                for (std::uint32_t i = 0; i < backend.ring(q).slots(); ++i)
                    backend.ring(q).add(block_request(op::write, i, q, {{page.ref, 0, 0, 0}}));
                backend.ring(q).show();
            }
            backend.turns(20);
            for (unsigned q = 0; q < queues; ++q) {
                CHECK(backend.ring(q).take_all().size() == backend.ring(q).slots());
                CHECK(backend.stats.queue[q].responses.get() == backend.ring(q).slots());
            }
            CHECK_FALSE(backend.broken());
        }
    }
}

TEST_CASE("a discard makes a hole, and a flush with nothing to write is only a flush") {
    Alone backend;
    const auto page = backend.page();
    Alone::fill(page, 1);
    REQUIRE(ask(backend, block_request(op::write, 1, 8, {whole_page(page.ref)})) == status::okay);
    REQUIRE(ask(backend, block_discard(2, 8, 8)) == status::okay);
    CHECK(backend.on_disk(8 * 512, page_size) == std::vector<std::byte>(page_size));
    CHECK(ask(backend, block_request(op::flush_diskcache, 3, 0, {})) == status::okay);
    CHECK(ask(backend, block_discard(4, 8, 8, true)) == status::not_supported);
}

TEST_CASE("an error of the host answers its own request and no other") {
    for (const bool persistent : {false, true}) {
        Alone backend({.scripted = true, .direct_view = false, .persistent = persistent});
        const auto page = backend.page();
        for (unsigned i = 0; i < 8; ++i) backend.ring().add(block_request(op::write, i, i, {{page.ref, 0, 0, 0}}));
        backend.show_and_turn();
        REQUIRE(backend.disk.pending.size() == 8);
        backend.disk.finish(5, ENOSPC);
        backend.disk.finish(3, EOPNOTSUPP);
        backend.disk.finish_all();
        backend.turns();
        const auto answers = backend.ring().take_all();
        REQUIRE(answers.size() == 8);
        for (const auto& answer : answers)
            CHECK(answer.status == (answer.id == 5   ? status::error
                                    : answer.id == 3 ? status::not_supported
                                                     : status::okay));
        CHECK_FALSE(backend.broken());
    }
}

TEST_CASE("answers come in the order in which the host is done") {
    Alone backend({.scripted = true});
    const auto page = backend.page();
    for (unsigned i = 0; i < 4; ++i) backend.ring().add(block_request(op::read, i, i, {{page.ref, 0, 0, 0}}));
    backend.show_and_turn();
    backend.disk.finish(3), backend.disk.finish(1), backend.disk.finish(0), backend.disk.finish(0);
    backend.turns();
    std::vector<std::uint64_t> order;
    for (const auto& answer : backend.ring().take_all()) order.push_back(answer.id);
    CHECK(order == std::vector<std::uint64_t>{3, 1, 0, 2});
}
