// A lying guest against the block backend. The worker is the real one; the guest is this file.
#include <atomic>
#include <catch2/catch.hpp>
#include <random>
#include <thread>

#include "tests/support/block_backend_alone.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;
namespace status = block::status;

namespace {

using Alone = BlockBackendAlone<>;

struct Path {
    bool direct_view, persistent;
};
constexpr Path paths[] = {{true, false}, {false, false}, {false, true}};

std::vector<std::int16_t> ask(Alone& backend, const block::Native::Request& request) {
    backend.ring().add(request);
    backend.show_and_turn();
    std::vector<std::int16_t> out;
    for (const auto& answer : backend.ring().take_all()) out.push_back(answer.status);
    return out;
}
const std::vector<std::int16_t> good{status::okay}, bad{status::error};

bool works(Alone& backend) {
    const auto page = backend.page();
    Alone::fill(page, 77);
    return ask(backend, block_request(op::write, 1, 0, {whole_page(page.ref)})) == good &&
           backend.on_disk(0, page_size) == Alone::bytes(page) && !backend.broken();
}

}  // namespace

TEST_CASE("xsa_155 xsa_197 slots and segments that change while they are read move data only where a disk is") {
    for (const Path& path : paths) {
        Alone backend({.direct_view = path.direct_view, .persistent = path.persistent, .sectors = 64});
        const auto page = backend.page(), table = backend.page();
        const std::vector<block::Segment> fine{whole_page(page.ref)}, wrong{{page.ref, 3, 255, 0}};
        std::atomic<bool> stop{false};
        std::thread liar([&] {
            for (std::uint32_t i = 0; !stop; ++i) {
                (void)table.memory.copy_in(0, std::as_bytes(std::span(i % 2 ? fine : wrong)));
                auto request = block_request(op::write, 1, i % 2 ? 8 : ~0ull, i % 2 ? fine : wrong);
                if (i % 3 == 0) request.count = static_cast<std::uint8_t>(i);
                for (std::uint32_t slot = 0; slot < 8; ++slot) backend.ring().put(slot, request);
            }
        });
        std::uint32_t produced = 0, answered = 0;
        for (int round = 0; round < 3000; ++round) {
            backend.ring().put(produced % 32, round % 2 ? block_indirect(op::write, 1, 8, 1, table.ref)
                                                        : block_request(op::write, 1, 8, fine));
            backend.ring().producer(++produced);
            backend.turns(1);
            answered += static_cast<std::uint32_t>(backend.ring().take_all().size());
        }
        stop = true;
        liar.join();
        backend.turns();
        answered += static_cast<std::uint32_t>(backend.ring().take_all().size());
        CHECK(answered == produced);
        CHECK_FALSE(backend.broken());
        CHECK(backend.on_disk(0, 8 * 512) == std::vector<std::byte>(8 * 512));
        CHECK(backend.on_disk(16 * 512, 48 * 512) == std::vector<std::byte>(48 * 512));
    }
}

TEST_CASE("xsa_216 no byte of an answer is anything but zero or what the protocol says") {
    Alone backend;
    for (unsigned i = 0; i < 32; ++i) {
        block::Native::Request canary;
        std::memset(&canary, 0xA5, sizeof canary);
        backend.ring().put(i, canary);
    }
    for (unsigned i = 0; i < 32; ++i) backend.ring().add(block_request(static_cast<std::uint8_t>(i % 9), 0, 0, {}));
    backend.show_and_turn();
    const auto answers = backend.ring().take_all();
    REQUIRE(answers.size() == 32);
    for (unsigned i = 0; i < 32; ++i) {
        CHECK(answers[i].pad == 0);
        CHECK(answers[i].pad2 == 0);
        // an indirect request is answered with the operation in it: here a read
        CHECK(answers[i].operation == (i % 9 == block::operation::indirect ? block::operation::read : i % 9));
    }
}

TEST_CASE("xsa_229 neighbouring references that are no neighbours in memory are not taken for one piece") {
    std::mt19937 random(2);
    for (const Path& path : paths) {
        Alone backend({.direct_view = path.direct_view, .persistent = path.persistent});
        const auto block = backend.hypervisor.lend(64, Access::read_write);
        const auto page_at = [&](std::uint32_t n) {
            return Alone::Page{block.first + n, block.memory.subspan(n * page_size, page_size)};
        };
        for (int round = 0; round < 400; ++round) {
            std::vector<block::Segment> segments;
            std::vector<Alone::Page> pages;
            for (unsigned i = 0; i < 11; ++i) {
                // Forwards, backwards, the same again, every other.
                const std::uint32_t n = (round % 4 == 0   ? i
                                         : round % 4 == 1 ? 40 - i
                                         : round % 4 == 2 ? 2 * i
                                                          : random() % 64);
                pages.push_back(page_at(n));
                Alone::fill(pages.back(), n + round);
                segments.push_back(whole_page(pages.back().ref));
            }
            REQUIRE(ask(backend, block_request(op::write, 1, 0, segments)) == good);
            for (unsigned i = 0; i < 11; ++i)
                REQUIRE(backend.on_disk(i * page_size, page_size) == Alone::bytes(pages[i]));
        }
    }
}

TEST_CASE("xsa_350 ten thousand quick connects and disconnects with requests in flight leave nothing behind") {
    Alone backend({.scripted = true, .direct_view = false, .persistent = true});
    const auto page = backend.page();
    for (int i = 0; i < 10000; ++i) {
        backend.ring().add(block_request(op::write, 1, 0, {whole_page(page.ref)}));
        backend.ring().show();
        if (i % 3 != 0) backend.turns(1);
        if (i % 5 == 0) backend.disk.finish_all();
        backend.worker.reset();
        CHECK(backend.hypervisor.mapped == 0);
        backend.start(i % 7 == 0 && !backend.broken());
        (void)backend.ring().take_all();
        if (backend.broken()) {  // its ring was full of what nobody answered: begins anew, as a frontend would
            backend.faults.clear();
            backend.queues[0].ring = BlockRing<block::Native>(
                backend.hypervisor.view({.ref = GrantRef(backend.queues[0].first_ref), .length = page_size},
                                        Access::read_write, backend.last_status));
            backend.worker.reset();
            backend.start();
        }
    }
    backend.worker.reset();
    CHECK(backend.hypervisor.mapped == 0);
}

TEST_CASE("xsa_361 xsa_365 one bad grant among good ones, in any place, fails its request and no other") {
    for (const Path& path : paths) {
        Alone backend({.direct_view = path.direct_view, .persistent = path.persistent, .max_persistent = 40});
        const auto table = backend.page();
        std::vector<Alone::Page> pages;
        for (unsigned i = 0; i < 34; ++i) pages.push_back(backend.page());
        const auto read_only = backend.page(Access::read_only);
        for (unsigned n = 1; n <= 34; ++n)
            for (unsigned k = 0; k < n; ++k)
                for (const bool read : {false, true}) {
                    std::vector<block::Segment> segments;
                    for (unsigned i = 0; i < n; ++i) segments.push_back(whole_page(pages[i].ref));
                    // No such grant; and for reads one that may not be written.
                    segments[k].gref = read && k % 2 ? read_only.ref : 0x7FFFFFF0;
                    const std::uint8_t operation = read ? op::read : op::write;
                    if (n > 11) {
                        (void)table.memory.copy_in(0, std::as_bytes(std::span(segments)));
                        REQUIRE(ask(backend,
                                    block_indirect(operation, 1, 0, static_cast<std::uint16_t>(n), table.ref)) == bad);
                    } else {
                        REQUIRE(ask(backend, block_request(operation, 1, 0, segments)) == bad);
                    }
                }
        REQUIRE(works(backend));
        backend.worker.reset();
        CHECK(backend.hypervisor.mapped == 0);
    }
}

TEST_CASE("xsa_362 when the system runs short at any one call, one request fails or is served otherwise, and no more") {
    for (const bool persistent : {false, true})
        for (int k = 0; k < 40; ++k) {
            Alone backend({.direct_view = false, .persistent = persistent});
            const auto table = backend.page();
            std::vector<block::Segment> segments;
            for (unsigned i = 0; i < 20; ++i) segments.push_back(whole_page(backend.page().ref));
            (void)table.memory.copy_in(0, std::as_bytes(std::span(segments)));
            backend.hypervisor.maps_until_failure = k;
            backend.hypervisor.copies_until_failure = k;
            unsigned failed = 0;
            for (unsigned i = 0; i < 6; ++i)
                failed += ask(backend, block_indirect(i % 2 ? op::read : op::write, i, 0, 20, table.ref)) != good;
            CHECK(failed <= 1);
            backend.hypervisor.maps_until_failure = backend.hypervisor.copies_until_failure = -1;
            CHECK(works(backend));
            backend.worker.reset();
            CHECK(backend.hypervisor.mapped == 0);
        }
}

TEST_CASE("xsa_371 a disk that goes while its requests are with the host has no page mapped afterwards") {
    for (const bool persistent : {false, true}) {
        Alone backend({.scripted = true, .direct_view = false, .persistent = persistent});
        for (unsigned i = 0; i < 30; ++i)
            backend.ring().add(block_request(op::read, i, i, {whole_page(backend.page().ref)}));
        backend.show_and_turn();
        REQUIRE(backend.disk.pending.size() == 30);
        backend.disk.finish(3, EIO);
        backend.worker.reset();
        CHECK(backend.hypervisor.mapped == 0);
    }
}

TEST_CASE(
    "a grant that ends while its request is with the host is an error of this request, or was mapped and is not") {
    for (const bool persistent : {false, true}) {
        Alone backend({.scripted = true, .direct_view = false, .persistent = persistent});
        const auto ends = backend.page(), stays = backend.page();
        backend.ring().add(block_request(op::read, 1, 0, {whole_page(ends.ref)}));
        backend.ring().add(block_request(op::read, 2, 0, {whole_page(stays.ref)}));
        backend.show_and_turn();
        backend.hypervisor.withdraw(ends.ref);
        backend.disk.finish_all();
        backend.turns();
        const auto answers = backend.ring().take_all();
        REQUIRE(answers.size() == 2);
        CHECK(answers[0].status == (persistent ? status::okay : status::error));
        CHECK(answers[1].status == status::okay);
        CHECK_FALSE(backend.broken());
    }
}

TEST_CASE("an indirect page that nobody granted, or that holds nonsense, is an error of its request") {
    Alone backend;
    const auto table = backend.page(), page = backend.page();
    CHECK(ask(backend, block_indirect(op::write, 1, 0, 4, 0x7FFFFFF0)) == bad);
    std::vector<block::Segment> segments(256, whole_page(page.ref));
    for (unsigned i = 0; i < 256; i += 51) {
        auto with = segments;
        with[i].last_sect = 8;
        (void)table.memory.copy_in(0, std::as_bytes(std::span(with)));
        CHECK(ask(backend, block_indirect(op::write, 1, 0, 256, table.ref)) == bad);
    }
    (void)table.memory.copy_in(0, std::as_bytes(std::span(segments)));
    CHECK(ask(backend, block_indirect(op::write, 1, 1, 256, table.ref)) == bad);  // one sector beyond the end
    CHECK(ask(backend, block_indirect(op::write, 1, 0, 257, table.ref)) == bad);
    CHECK(ask(backend, block_indirect(op::write, 1, 0, 256, table.ref)) == good);
}

TEST_CASE("a full ring is served, and an index beyond it breaks the device, once") {
    Alone backend;
    const auto page = backend.page();
    for (unsigned i = 0; i < 32; ++i) backend.ring().add(block_request(op::write, i, 0, {whole_page(page.ref)}));
    backend.show_and_turn();
    CHECK(backend.ring().take_all().size() == 32);
    const auto before = backend.ring().response_producer();
    backend.ring().producer(backend.ring().produced() + 33);
    backend.turns();
    REQUIRE(backend.faults.size() == 1);
    CHECK(backend.faults[0].fault == Fault::peer);
    backend.ring().producer(backend.ring().produced() + 1);
    backend.turns();
    CHECK(backend.faults.size() == 1);
    CHECK(backend.ring().response_producer() == before);
    CHECK(backend.stats.broken.get() == 1);
}

TEST_CASE("requests that are with the host when the index breaks end without an answer and without harm") {
    for (const bool persistent : {false, true}) {
        Alone backend({.scripted = true, .direct_view = false, .persistent = persistent});
        const auto page = backend.page();
        backend.ring().add(block_request(op::read, 1, 0, {whole_page(page.ref)}));
        backend.show_and_turn();
        backend.ring().producer(500);
        backend.turns();
        REQUIRE(backend.broken());
        Alone::fill(page, 3);
        const auto before = Alone::bytes(page);
        if (!persistent) {
            backend.disk.finish_all();
            CHECK(Alone::bytes(page) == before);
        }
        backend.turns();
        CHECK(backend.ring().response_producer() == 0);
    }
}

TEST_CASE("a journal that its last owner filled with anything makes a successor refuse or serve, never more") {
    std::mt19937 random(9);
    unsigned refused = 0;
    for (int round = 0; round < 600; ++round) {
        Alone backend({.direct_view = false, .persistent = true});
        const auto page = backend.page();
        backend.ring().add(block_request(op::write, 1, 0, {whole_page(page.ref)}));
        backend.show_and_turn();
        backend.worker.reset();
        const std::size_t from = round % 3 == 0 ? 64 : 0;
        for (unsigned n = 1 + random() % 64; n > 0; --n)
            backend.journal[from + random() % (backend.journal.size() - from)] = static_cast<std::byte>(random());
        backend.start(true);
        refused += backend.broken();
        if (backend.worker) backend.turns();
        backend.worker.reset();
        CHECK(backend.hypervisor.mapped == 0);
    }
    CHECK(refused < 600);
}

TEST_CASE("requests of every shape, in any number, say so little in the log that a disk is not filled by it") {
    Alone backend;
    for (unsigned i = 0; i < 3200; ++i) {
        backend.ring().add(block_request(static_cast<std::uint8_t>(i), i, i, {{i, 9, 3, 0}}));
        if (i % 32 == 31) backend.show_and_turn(), (void)backend.ring().take_all();
    }
    CHECK(backend.log.suppressed() > 3000);
    CHECK(works(backend));
}
