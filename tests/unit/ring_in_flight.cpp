// The in-flight journal: a backend may die at every instruction, and its successor answers what was not answered, once,
// oldest first.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <set>

#include "ring/detail/shared_access.h"
#include "ring/in_flight.h"

using namespace caisson;

namespace {

struct Toy {
    struct Request {
        std::uint64_t id, filler[13];
    };
    struct Response {
        std::uint64_t id;
    };
};
using Entry = InFlightEntry<Toy::Request>;

struct alignas(4096) Page {
    std::byte bytes[page_size]{};
    SharedSpan span() { return detail::SharedAccess::span(bytes, sizeof bytes); }
};

// Everything that survives a death: the ring, and the journal.
struct World {
    Page page;
    RingIndices indices;
    std::vector<Entry> entries = std::vector<Entry>(ring_slots<Toy>(page_size));
};

// A frontend that counts how often each id was answered.
struct Frontend {
    explicit Frontend(World& w) : ring(FrontRing<Toy>::initialise(w.page.span(), indices)) {}
    std::uint64_t ask() {
        ring.push({.id = next, .filler = {}});
        (void)ring.publish();
        return next++;
    }
    void take() {
        REQUIRE(ring.drain(1000, [&](Untrusted<Toy::Response>&& response, std::uint32_t) {
            std::move(response).check([&](const Toy::Response& r) { return answered.push_back(r.id), 0; });
        }));
    }
    RingIndices indices;
    FrontRing<Toy> ring;
    std::uint64_t next = 0;
    std::vector<std::uint64_t> answered;
};

std::uint64_t id_of(const InFlight<Toy>& table, Tag tag) {
    return table.request(tag).check([](const Toy::Request& r) { return r.id; });
}

}  // namespace

TEST_CASE("requests are answered in any order, and each slot can be used again at once") {
    World world;
    Frontend frontend(world);
    BackRing<Toy> ring(world.page.span(), world.indices);
    InFlight<Toy> table(world.entries);
    std::vector<std::pair<Tag, std::uint64_t>> taken;
    std::mt19937 random(1);
    for (int round = 0; round < 2000; ++round) {
        while (!frontend.ring.full()) frontend.ask();
        REQUIRE(table.drain(ring, 1000, [&](Untrusted<Toy::Request>&& r, Tag tag) {
            taken.emplace_back(tag, std::move(r).check([](const Toy::Request& q) { return q.id; }));
        }));
        CHECK(table.count() == taken.size());
        for (unsigned n = random() % taken.size() + 1; n > 0; --n) {
            std::swap(taken[random() % taken.size()], taken.back());
            table.answer(ring, taken.back().first, {taken.back().second});
            taken.pop_back();
        }
        (void)ring.publish();
        frontend.take();
    }
    CHECK(std::set(frontend.answered.begin(), frontend.answered.end()).size() == frontend.answered.size());
    CHECK(frontend.answered.size() + taken.size() == frontend.next);
}

// What the journal and the ring hold after each single store of drain() and answer(), made by hand.
TEST_CASE("whatever store of taking a request was the last, the successor serves it exactly once") {
    for (int stores = 0; stores <= 5; ++stores) {
        World world;
        world.indices = {.consumed = 40, .produced = 39};  // an older one is in flight
        world.entries[3] = {.state = Entry::taken, .index = 39, .request = {.id = 39, .filler = {}}};
        Entry& entry = world.entries[7];
        if (stores >= 1) entry.request = {.id = 40, .filler = {}};
        if (stores >= 2) entry.index = 40;
        if (stores >= 3) entry.state = Entry::taken;
        if (stores >= 4) world.indices.consumed = 41;
        const auto table = InFlight<Toy>::attach(world.entries, world.indices);
        REQUIRE(table);
        std::vector<std::uint64_t> ids;
        for (const Tag tag : table->unanswered()) ids.push_back(id_of(*table, tag));
        // Before its index passed, the request is still in the ring, and will be taken from there.
        CHECK(ids == (stores < 4 ? std::vector<std::uint64_t>{39} : std::vector<std::uint64_t>{39, 40}));
        CHECK(table->count() == ids.size());
    }
}

TEST_CASE("whatever store of answering was the last, the request is answered exactly once") {
    for (int stores = 0; stores <= 4; ++stores) {
        World world;
        world.indices = {.consumed = 42, .produced = 40};
        world.entries[0] = {.state = Entry::taken, .index = 39, .request = {.id = 39, .filler = {}}};
        world.entries[1] = {.state = Entry::taken, .index = 41, .request = {.id = 41, .filler = {}}};
        Entry& entry = world.entries[1];
        if (stores >= 1) entry.response = 40;
        if (stores >= 2) entry.state = Entry::answering;
        if (stores >= 3) world.indices.produced = 41;
        if (stores >= 4) entry.state = Entry::free;
        const auto table = InFlight<Toy>::attach(world.entries, world.indices);
        REQUIRE(table);
        std::vector<std::uint64_t> ids;
        for (const Tag tag : table->unanswered()) ids.push_back(id_of(*table, tag));
        CHECK(ids == (stores < 3 ? std::vector<std::uint64_t>{39, 41} : std::vector<std::uint64_t>{39}));
    }
}

TEST_CASE("a stale response index of an earlier use of the entry does not hide a request") {
    World world;
    world.indices = {.consumed = 101, .produced = 100};
    // Answered before as response 99, taken again, and died when only the state of the new answer was to come.
    world.entries[4] = {.state = Entry::taken, .index = 100, .response = 99, .request = {.id = 5, .filler = {}}};
    const auto table = InFlight<Toy>::attach(world.entries, world.indices);
    REQUIRE(table);
    CHECK(table->unanswered().size() == 1);
}

TEST_CASE("indices that wrap are as good as others") {
    World world;
    const std::uint32_t base = ~0u - 1;
    world.indices = {.consumed = base + 4, .produced = base};
    for (std::uint32_t i = 0; i < 4; ++i)
        world.entries[9 - i] = {.state = Entry::taken, .index = base + i, .request = {.id = i, .filler = {}}};
    const auto table = InFlight<Toy>::attach(world.entries, world.indices);
    REQUIRE(table);
    std::vector<std::uint64_t> ids;
    for (const Tag tag : table->unanswered()) ids.push_back(id_of(*table, tag));
    CHECK(ids == std::vector<std::uint64_t>{0, 1, 2, 3});
}

TEST_CASE("a journal that contradicts itself is refused, or believed within bounds: never more than the ring has") {
    std::mt19937 random(7);
    unsigned refused = 0;
    for (int i = 0; i < 20000; ++i) {
        World world;
        world.indices = {.consumed = static_cast<std::uint32_t>(random()), .produced = 0};
        world.indices.produced = world.indices.consumed - random() % (world.entries.size() + 1);
        for (Entry& entry : world.entries) {
            entry.state = random() % 5;
            entry.index = world.indices.consumed - random() % 80 + 8;
            entry.response = world.indices.produced - random() % 80 + 8;
        }
        const auto table = InFlight<Toy>::attach(world.entries, world.indices);
        refused += !table;
        if (table) CHECK(table->count() == world.indices.consumed - world.indices.produced);
    }
    CHECK(refused > 1000);
}

TEST_CASE("a backend that dies again and again loses nothing and answers nothing twice") {
    std::mt19937 random(11);
    World world;
    Frontend frontend(world);
    for (int life = 0; life < 3000; ++life) {
        auto ring = BackRing<Toy>::attach(world.page.span(), world.indices);
        REQUIRE(ring);
        auto table = InFlight<Toy>::attach(world.entries, world.indices);
        REQUIRE(table);
        std::vector<Tag> tags(table->unanswered().begin(), table->unanswered().end());
        for (std::size_t i = 1; i < tags.size(); ++i) CHECK(id_of(*table, tags[i - 1]) < id_of(*table, tags[i]));
        for (unsigned act = random() % 12; act > 0; --act) {
            for (unsigned n = random() % 8; n > 0 && !frontend.ring.full(); --n) frontend.ask();
            REQUIRE(
                table->drain(*ring, random() % 9, [&](Untrusted<Toy::Request>&&, Tag tag) { tags.push_back(tag); }));
            for (unsigned n = random() % 8; n > 0 && !tags.empty(); --n) {
                std::swap(tags[random() % tags.size()], tags.back());
                table->answer(*ring, tags.back(), {id_of(*table, tags.back())});
                tags.pop_back();
            }
            if (random() % 2) (void)ring->publish();
            frontend.take();
        }
    }
    // The last one finishes.
    auto ring = BackRing<Toy>::attach(world.page.span(), world.indices);
    auto table = InFlight<Toy>::attach(world.entries, world.indices);
    for (const Tag tag : table->unanswered()) table->answer(*ring, tag, {id_of(*table, tag)});
    REQUIRE(table->drain(*ring, 1000,
                         [&](Untrusted<Toy::Request>&&, Tag tag) { table->answer(*ring, tag, {id_of(*table, tag)}); }));
    (void)ring->publish();
    frontend.take();
    std::ranges::sort(frontend.answered);
    REQUIRE(frontend.answered.size() == frontend.next);
    for (std::uint64_t i = 0; i < frontend.next; ++i) REQUIRE(frontend.answered[i] == i);
}
