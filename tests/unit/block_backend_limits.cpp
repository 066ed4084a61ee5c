// What a frontend may use: mapped pages, private memory, requests and bytes a second; and a disk that changes its size.
#include <catch2/catch.hpp>
#include <set>

#include "backends/block/bounce.h"
#include "backends/block/control.h"
#include "backends/block/grants.h"
#include "tests/support/block_backend_alone.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;
namespace status = block::status;
using block::backend::BouncePool;
using block::backend::GrantCache;

namespace {
using Alone = BlockBackendAlone<>;
}

// ---- Mapped pages --------------------------------------------------------------------------------------------------

TEST_CASE("the grant cache keeps the pages that were used last, and never more than its capacity") {
    LendingHypervisor hypervisor;
    const auto lent = hypervisor.lend(300, Access::read_write);
    {
        GrantCache cache(hypervisor, DomainId(2), 16);
        for (std::uint32_t i = 0; i < 300; ++i) {
            const auto place = cache.pin(GrantRef(lent.first + i));
            REQUIRE(place);
            cache.unpin(*place);
            CHECK(cache.mapped() <= 16);
        }
        CHECK(hypervisor.mapped == 16);
        hypervisor.maps_until_failure = 0;  // what is there is found without a new map
        for (std::uint32_t i = 284; i < 300; ++i) {
            const auto place = cache.pin(GrantRef(lent.first + i));
            REQUIRE(place);
            cache.unpin(*place);
        }
        CHECK_FALSE(cache.pin(GrantRef(lent.first)));  // this one would be new
        CHECK(hypervisor.mapped == 16);
    }
    CHECK(hypervisor.mapped == 0);
}

TEST_CASE("a page that is in use is not evicted; a cache full of them says no") {
    LendingHypervisor hypervisor;
    const auto lent = hypervisor.lend(8, Access::read_write);
    GrantCache cache(hypervisor, DomainId(2), 4);
    std::vector<std::uint32_t> places;
    for (std::uint32_t i = 0; i < 4; ++i) places.push_back(*cache.pin(GrantRef(lent.first + i)));
    CHECK_FALSE(cache.pin(GrantRef(lent.first + 4)));
    cache.unpin(places[2]);
    CHECK(cache.pin(GrantRef(lent.first + 4)) == places[2]);
    CHECK_FALSE(cache.pin(GrantRef(lent.first + 2)));
}

TEST_CASE("the grant cache finds every page among references that fall on the same place of its table") {
    LendingHypervisor hypervisor;
    const auto lent = hypervisor.lend(4096, Access::read_write);
    GrantCache cache(hypervisor, DomainId(2), 64);
    std::vector<std::uint32_t> refs;  // all with the same upper bits after multiplication
    for (std::uint32_t i = 0; i < 4096; ++i)
        if (((lent.first + i) * 0x9E3779B1u) >> 28 == 5) refs.push_back(lent.first + i);
    REQUIRE(refs.size() > 128);
    for (int round = 0; round < 3; ++round)
        for (std::size_t i = 0; i < refs.size(); ++i) {
            const auto place = cache.pin(GrantRef(refs[i]));
            REQUIRE(place);
            CHECK(cache.pin(GrantRef(refs[i])) == place);
            cache.unpin(*place), cache.unpin(*place);
        }
    CHECK(hypervisor.mapped == 64);
}

TEST_CASE("what a request needs is mapped in one call, and goes together") {
    LendingHypervisor hypervisor;
    const auto lent = hypervisor.lend(64, Access::read_write);
    GrantCache cache(hypervisor, DomainId(2), 32);
    const auto refs = [&](std::uint32_t first, std::uint32_t count) {
        std::vector<GrantRef> all;
        for (std::uint32_t i = count; i-- > 0;) all.emplace_back(lent.first + first + i);
        all.push_back(all.front());  // a frontend may name a page twice
        return all;
    };
    std::vector<std::uint32_t> first, second, third;
    hypervisor.maps_until_failure = 1;
    REQUIRE(cache.pin(refs(0, 16), first));
    CHECK(first.size() == 17);
    CHECK(first.front() == first.back());
    CHECK(std::set(first.begin(), first.end()).size() == 16);
    CHECK_FALSE(cache.pin(refs(8, 16), second));  // half of them are there; the rest cannot be mapped
    CHECK(second.empty());
    CHECK(cache.mapped() == 16);
    hypervisor.maps_until_failure = -1;
    REQUIRE(cache.pin(refs(8, 16), second));
    CHECK(cache.mapped() == 24);
    CHECK_FALSE(cache.pin(refs(40, 16), third));  // no room while requests need the others
    for (const std::uint32_t place : first) cache.unpin(place);
    CHECK_FALSE(cache.pin(refs(40, 16), third));  // half of the first batch is the second request's, too
    for (const std::uint32_t place : second) cache.unpin(place);
    REQUIRE(cache.pin(refs(40, 16), third));
    CHECK(cache.mapped() <= 32);
    CHECK(static_cast<int>(cache.mapped()) == hypervisor.mapped);
    std::vector<std::uint32_t> again;
    REQUIRE(cache.pin(refs(40, 16), again));
    CHECK(again == third);
}

TEST_CASE("persistent grants are mapped once and used again, and the cap holds: beyond it data is copied") {
    Alone backend({.direct_view = false, .persistent = true, .max_persistent = 4});
    std::vector<Alone::Page> pages;
    for (unsigned i = 0; i < 10; ++i) pages.push_back(backend.page());
    const int before = backend.hypervisor.mapped;
    for (unsigned round = 0; round < 3; ++round) {
        for (unsigned i = 0; i < 4; ++i)
            backend.ring().add(block_request(op::write, i, i * 8, {whole_page(pages[i].ref)}));
        backend.show_and_turn();
        CHECK(backend.ring().take_all().size() == 4);
        CHECK(backend.pages_mapped() == 4);
        CHECK(backend.hypervisor.mapped == before + 4);
    }
    // Seven pages in one request do not fit: all of them are copied, and the cache is as it was.
    std::vector<block::Segment> segments;
    for (unsigned i = 0; i < 7; ++i) {
        Alone::fill(pages[i], 40 + i);
        segments.push_back(whole_page(pages[i].ref));
    }
    backend.ring().add(block_request(op::write, 9, 0, segments));
    backend.show_and_turn();
    const auto answer = backend.ring().take();
    REQUIRE(answer);
    CHECK(answer->status == status::okay);
    CHECK(backend.pages_mapped() == 4);
    for (unsigned i = 0; i < 7; ++i) CHECK(backend.on_disk(i * page_size, page_size) == Alone::bytes(pages[i]));
}

TEST_CASE("a page of segments is a persistent grant as well: an indirect request of mapped pages needs no copy") {
    Alone backend({.direct_view = false, .persistent = true, .max_persistent = 16});
    const auto table = backend.page(), page = backend.page();
    const std::vector<block::Segment> segments(12, whole_page(page.ref));
    (void)table.memory.copy_in(0, std::as_bytes(std::span(segments)));
    backend.hypervisor.copies_until_failure = 0;
    for (unsigned round = 0; round < 3; ++round) {
        backend.ring().add(block_indirect(op::write, round, 0, 12, table.ref));
        backend.show_and_turn();
        const auto answer = backend.ring().take();
        REQUIRE(answer);
        CHECK(answer->status == status::okay);
        CHECK(backend.pages_mapped() == 2);
    }
    CHECK(backend.hypervisor.copies_until_failure == 0);
}

// ---- Private memory ------------------------------------------------------------------------------------------------

TEST_CASE("private memory is given in runs that do not overlap, and all of it comes back") {
    BouncePool pool(0);
    REQUIRE(pool.pages() == 256);
    std::vector<std::span<std::byte>> runs;
    std::set<std::byte*> starts;
    unsigned seed = 1;
    for (int round = 0; round < 2000; ++round) {
        seed = seed * 1103515245 + 12345;
        if (seed / 65536 % 2 == 0 || runs.empty()) {
            const auto run = pool.take(512 + seed / 65536 % 40000);
            if (run.empty()) continue;
            for (const auto& other : runs)
                CHECK((run.data() >= other.data() + other.size() || run.data() + run.size() <= other.data()));
            runs.push_back(run);
        } else {
            std::swap(runs[seed / 256 % runs.size()], runs.back());
            pool.give_back(runs.back());
            runs.pop_back();
        }
    }
    for (const auto& run : runs) pool.give_back(run);
    CHECK(pool.pages_taken() == 0);
    const auto all = pool.take(256 * page_size);
    CHECK(all.size() == 256 * page_size);
    CHECK(pool.take(1).empty());
}

TEST_CASE("requests beyond the private memory wait in order, and none is lost") {
    Alone backend({.scripted = true, .ring_pages = 4, .direct_view = false});
    const auto table = backend.page(), page = backend.page();
    std::vector<block::Segment> segments(200, whole_page(page.ref));
    (void)table.memory.copy_in(0, std::as_bytes(std::span(segments)));
    for (unsigned i = 0; i < 100; ++i) backend.ring().add(block_indirect(op::write, i, 0, 200, table.ref));
    backend.show_and_turn();
    std::vector<std::uint64_t> order;
    while (order.size() < 100) {
        REQUIRE(backend.disk.pending.size() == 1);  // 800 KiB each, of 1 MiB
        backend.disk.finish(0);
        backend.turns();
        for (const auto& answer : backend.ring().take_all()) order.push_back(answer.id);
    }
    for (unsigned i = 0; i < 100; ++i) CHECK(order[i] == i);
    CHECK_FALSE(backend.broken());
}

// ---- Rates ---------------------------------------------------------------------------------------------------------

TEST_CASE("a limit of requests a second leaves what is beyond the burst in the ring, and takes it later") {
    Alone backend({.rate = {.requests_per_second = 200, .requests_burst = 3}});
    const auto page = backend.page();
    const auto start = Loop::Clock::now();
    for (unsigned i = 0; i < 10; ++i) backend.ring().add(block_request(op::read, i, 0, {whole_page(page.ref)}));
    backend.show_and_turn();
    CHECK(backend.stats.queue[0].requests.get() < 10);
    while (backend.stats.queue[0].responses.get() < 10) (void)backend.loop->turn(std::chrono::milliseconds(20));
    CHECK(Loop::Clock::now() - start >= std::chrono::milliseconds(34));  // 7 of them at 200 a second: never earlier
    CHECK(backend.ring().take_all().size() == 10);
}

TEST_CASE("a limit of bytes a second counts what is moved: a debt is paid before the next request") {
    Alone backend({.rate = {.bytes_per_second = 1'000'000, .bytes_burst = 4096}});
    const auto page = backend.page();
    for (unsigned i = 0; i < 8; ++i) backend.ring().add(block_request(op::read, i, 0, {whole_page(page.ref)}));
    const auto start = Loop::Clock::now();
    backend.show_and_turn();
    while (backend.stats.queue[0].responses.get() < 8) (void)backend.loop->turn(std::chrono::milliseconds(20));
    // The last starts when the seven before it are paid for, less the burst: never earlier.
    CHECK(Loop::Clock::now() - start >= std::chrono::milliseconds(24));
    CHECK(backend.ring().take_all().size() == 8);
}

TEST_CASE("rates are written as a number, or as a number and a burst") {
    using block::backend::parse_rate;
    CHECK(parse_rate("100")->per_second == 100);
    CHECK(parse_rate("100")->burst == 0);
    CHECK(parse_rate("100,7")->burst == 7);
    for (const char* wrong : {"", ",", "1,", ",1", "-1", "1k", "1,2,3", " 1", "0x10"}) CHECK_FALSE(parse_rate(wrong));
}

// ---- Size ----------------------------------------------------------------------------------------------------------

TEST_CASE("a disk that grew is used to its new end, and the worker says so before the frontend can know") {
    Alone backend;
    REQUIRE(::ftruncate(backend.file.get(), 4096 * 512) == 0);
    const auto page = backend.page();
    const auto ask = [&](std::uint64_t sector) {
        backend.ring().add(block_request(op::write, 1, sector, {whole_page(page.ref)}));
        backend.show_and_turn();
        return backend.ring().take()->status;
    };
    CHECK(ask(4088) == status::error);
    const std::uint64_t sectors = 4096;
    REQUIRE(backend.worker->update(std::as_bytes(std::span(&sectors, 1))));
    REQUIRE(backend.published.size() == 1);
    CHECK(backend.published[0] == std::pair<std::string, std::string>("sectors", "4096"));
    CHECK(ask(4088) == status::okay);
    CHECK(ask(4089) == status::error);
    // A successor gets the handover of the first connect, and still knows.
    backend.restart();
    CHECK(ask(4088) == status::okay);
    // What the file does not have cannot be used, whoever says it.
    const std::uint64_t lie = 1 << 20;
    REQUIRE(backend.worker->update(std::as_bytes(std::span(&lie, 1))));
    CHECK(backend.published.back().second == "4096");
    CHECK(ask(4096) == status::error);
}

TEST_CASE("a disk that shrank refuses what is beyond its new end") {
    Alone backend;
    const auto page = backend.page();
    const std::uint64_t sectors = 64;
    REQUIRE(backend.worker->update(std::as_bytes(std::span(&sectors, 1))));
    backend.ring().add(block_request(op::read, 1, 64, {{page.ref, 0, 0, 0}}));
    backend.ring().add(block_request(op::read, 2, 63, {{page.ref, 0, 0, 0}}));
    backend.show_and_turn();
    CHECK(backend.ring().take()->status == status::error);
    CHECK(backend.ring().take()->status == status::okay);
}

TEST_CASE("xsa_142 a read-only disk refuses every kind of write, and reads on") {
    for (const bool persistent : {false, true}) {
        Alone backend(
            {.scripted = true, .direct_view = false, .persistent = persistent, .info = block::disk_info::read_only});
        backend.disk.at_once = true;
        const auto page = backend.page(), table = backend.page();
        const block::Segment segment = whole_page(page.ref);
        (void)table.memory.copy_in(0, std::as_bytes(std::span(&segment, 1)));
        const std::vector<block::Native::Request> writes{
            block_request(op::write, 1, 0, {segment}), block_request(op::write_barrier, 2, 0, {segment}),
            block_request(op::flush_diskcache, 3, 0, {segment}), block_indirect(op::write, 4, 0, 1, table.ref),
            block_discard(5, 0, 8)};
        for (const auto& request : writes) backend.ring().add(request);
        backend.ring().add(block_request(op::read, 6, 0, {segment}));
        backend.ring().add(block_request(op::flush_diskcache, 7, 0, {}));
        backend.show_and_turn();
        for (const auto& answer : backend.ring().take_all())
            CHECK(answer.status == (answer.id < 6 ? status::error : status::okay));
        CHECK(backend.disk.submitted == std::vector{block::Operation::read, block::Operation::flush});
    }
}
