#include <catch2/catch.hpp>

#include <array>
#include <random>
#include <vector>

#include "ring/shared_ring.h"

using namespace caisson;

namespace {

struct Protocol {
    struct Request {
        std::uint32_t id, a, b;
    };
    struct Response {
        std::uint32_t id;
        std::int32_t status;
    };
};

struct Value {
    std::uint32_t id;
};
Value id_of(const Protocol::Request& r) { return {r.id}; }
Value id_of_response(const Protocol::Response& r) { return {r.id}; }

// A page with a ring and both halves; the liar in a test reaches the page itself.
struct Pair {
    alignas(4096) std::array<std::byte, 4096> page{};
    RingIndices front_indices, back_indices;
    std::array<Protocol::Request, 256> snapshots{};
    SharedSpan shared = detail::SharedAccess::span(page.data(), page.size());
    FrontRing<Protocol> front = FrontRing<Protocol>::initialise(shared, front_indices);
    BackRing<Protocol> back{shared, back_indices, snapshots};

    std::uint32_t& word(std::size_t offset) { return *reinterpret_cast<std::uint32_t*>(page.data() + offset); }
    void start_at(std::uint32_t index) {
        word(0) = word(8) = index, word(4) = word(12) = index + 1;
        front_indices = back_indices = {index, index};
        front = *FrontRing<Protocol>::attach(shared, front_indices);
        back = *BackRing<Protocol>::attach(shared, back_indices, snapshots);
    }
};

}  // namespace

TEST_CASE("ring sizes are Xen's") {
    STATIC_REQUIRE(ring_slot_bytes<Protocol> == 12);
    STATIC_REQUIRE(ring_slots<Protocol>(4096) == 256);
    STATIC_REQUIRE(ring_slots<Protocol>(8192) == 512);
    STATIC_REQUIRE(ring_slots<Protocol>(64) == 0);
}

TEST_CASE("every fill level passes, at every place of the index, and in order") {
    for (const std::uint32_t start : {0u, 200u, 0xFFFFFF80u, 0xFFFFFFFFu}) {
        Pair pair;
        pair.start_at(start);
        std::uint32_t next = 0, seen = 0;
        for (std::uint32_t fill = 1; fill <= 256; ++fill) {
            for (std::uint32_t i = 0; i < fill; ++i) pair.front.push({next++, 0, 0});
            (void)pair.front.publish();
            const auto taken = pair.back.drain(~0u, [&](Untrusted<Protocol::Request>&& r, std::uint32_t) {
                const auto id = std::move(r).check(id_of).id;
                REQUIRE(id == seen++);
                pair.back.push({id, 0});
            });
            REQUIRE(taken == fill);
            (void)pair.back.publish();
            std::uint32_t answered = 0;
            REQUIRE(pair.front.drain(~0u, [&](auto&&, std::uint32_t) { ++answered; }) == fill);
            REQUIRE(answered == fill);
            REQUIRE(pair.front.free() == 256);
        }
    }
}

TEST_CASE("notify is asked for exactly when the doorbell was armed") {
    Pair pair;
    pair.front.push({1, 0, 0});
    CHECK(pair.front.publish());  // a new ring is armed
    CHECK(pair.back.drain(~0u, [](auto&&, auto) {}) == 1u);
    pair.front.push({2, 0, 0});
    CHECK_FALSE(pair.front.publish());  // the backend polls: nobody armed
    CHECK(pair.back.drain(~0u, [](auto&&, auto) {}) == 1u);
    CHECK(pair.back.arm() == false);
    pair.front.push({3, 0, 0});
    CHECK(pair.front.publish());
    CHECK(pair.back.arm() == true);  // looked again: there is work
}

TEST_CASE("a frontend can sleep until several answers are there") {
    Pair pair;
    for (std::uint32_t i = 0; i < 8; ++i) pair.front.push({i, 0, 0});
    (void)pair.front.publish();
    REQUIRE(pair.back.drain(~0u, [](auto&&, auto) {}) == 8u);
    CHECK(pair.front.arm(4) == false);
    for (std::uint32_t i = 0; i < 3; ++i) pair.back.push({i, 0});
    CHECK_FALSE(pair.back.publish());
    CHECK(pair.front.arm(4) == false);
    pair.back.push({3, 0});
    CHECK(pair.back.publish());
    CHECK(pair.front.arm(4) == true);
}

TEST_CASE("xsa_38_39_producer index beyond the ring breaks it, a completely full ring does not") {
    const auto breaks = [](std::uint32_t ahead) {
        Pair pair;
        pair.word(0) = ahead;
        const auto taken = pair.back.drain(~0u, [](auto&&, auto) {});
        CHECK(pair.back.broken() == !taken.has_value());
        return !taken.has_value();
    };
    CHECK_FALSE(breaks(0));
    CHECK_FALSE(breaks(1));
    CHECK_FALSE(breaks(255));
    CHECK_FALSE(breaks(256));
    CHECK(breaks(257));
    CHECK(breaks(0x80000000u));
    CHECK(breaks(0xFFFFFFFFu));
}

TEST_CASE("a broken ring is not read again") {
    Pair pair;
    pair.word(0) = 1000;
    REQUIRE_FALSE(pair.back.drain(~0u, [](auto&&, auto) {}));
    pair.word(0) = 1;  // the liar makes it look good again
    int calls = 0;
    CHECK_FALSE(pair.back.drain(~0u, [&](auto&&, auto) { ++calls; }));
    CHECK_FALSE(pair.back.arm());
    CHECK(calls == 0);
    CHECK(pair.back.fault().fault == Fault::peer);
    CHECK(pair.back.fault().message() == "request producer index ahead by: 1000, at most 256");
}

TEST_CASE("a request index that goes back, or past what is unanswered, breaks the ring") {
    Pair pair;
    for (std::uint32_t i = 0; i < 10; ++i) pair.front.push({i, 0, 0});
    (void)pair.front.publish();
    REQUIRE(pair.back.drain(~0u, [](auto&&, auto) {}) == 10u);
    SECTION("back") { pair.word(0) = 9; }
    SECTION("past") { pair.word(0) = 257; }  // ten are unanswered: only 246 more fit
    CHECK_FALSE(pair.back.available());
    CHECK(pair.back.broken());
}

TEST_CASE("there are never more responses than requests outstanding") {
    Pair pair;
    for (std::uint32_t i = 0; i < 3; ++i) pair.front.push({i, 0, 0});
    (void)pair.front.publish();
    pair.word(8) = 4;  // RING_RESPONSE_PROD_OVERFLOW would let up to 256 through
    CHECK_FALSE(pair.front.drain(~0u, [](auto&&, auto) {}));
    CHECK(pair.front.broken());
}

TEST_CASE("xsa_155_a slot is read once: what changes afterwards is not seen") {
    Pair pair;
    pair.front.push({7, 1, 1});
    (void)pair.front.publish();
    REQUIRE(pair.back.drain(1, [&](Untrusted<Protocol::Request>&& r, std::uint32_t) {
        pair.word(64) = 99;  // the peer rewrites its slot
        CHECK(std::move(r).check(id_of).id == 7);
    }));
    CHECK(pair.back.snapshot(0).check(id_of).id == 7);
}

TEST_CASE("xsa_216_a response writes every byte of its type and none of ours beside it") {
    Pair pair;
    pair.page.fill(std::byte{0xAA});
    pair.front = FrontRing<Protocol>::initialise(pair.shared, pair.front_indices);
    pair.front.push({0, 0, 0});
    (void)pair.front.publish();
    REQUIRE(pair.back.drain(1, [](auto&&, auto) {}));
    pair.back.push({0x11111111, 0x22222222});
    CHECK(pair.word(64) == 0x11111111);
    CHECK(pair.word(68) == 0x22222222);
    CHECK(pair.word(72) == 0);  // the rest of the slot is as the frontend left it
}

TEST_CASE("a successor continues wherever its predecessor died") {
    // Die after `taken` requests were taken and `given` responses pushed, of which `shown` were published.
    for (std::uint32_t taken = 0; taken <= 8; ++taken)
        for (std::uint32_t given = 0; given <= taken; ++given)
            for (const bool shown : {false, true}) {
                Pair pair;
                for (std::uint32_t i = 0; i < 8; ++i) pair.front.push({i, 0, 0});
                (void)pair.front.publish();
                REQUIRE(pair.back.drain(taken, [](auto&&, auto) {}));
                for (std::uint32_t i = 0; i < given; ++i) pair.back.push({i, 0});
                if (shown) (void)pair.back.publish();

                auto next = *BackRing<Protocol>::attach(pair.shared, pair.back_indices, pair.snapshots);
                REQUIRE(next.unanswered() == taken - given);
                for (auto index = next.first_unanswered(); next.unanswered() > 0; ++index)
                    next.push({next.snapshot(index).check(id_of).id, 1});
                REQUIRE(next.drain(~0u, [&](Untrusted<Protocol::Request>&& r, std::uint32_t) {
                    next.push({std::move(r).check(id_of).id, 0});
                }));
                (void)next.publish();
                std::vector<std::uint32_t> ids;
                REQUIRE(pair.front.drain(~0u, [&](Untrusted<Protocol::Response>&& r, std::uint32_t) {
                    ids.push_back(std::move(r).check(id_of_response).id);
                }));
                REQUIRE(ids == std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5, 6, 7});  // each once
            }
}

TEST_CASE("a journal that lies is refused, not believed") {
    Pair pair;
    pair.back_indices = {.consumed = 5000, .produced = 3};
    CHECK_FALSE(BackRing<Protocol>::attach(pair.shared, pair.back_indices));
    pair.front_indices = {.consumed = 0, .produced = 300};
    CHECK_FALSE(FrontRing<Protocol>::attach(pair.shared, pair.front_indices));
}

TEST_CASE("random bytes in the page never make a ring take more than it holds") {
    std::mt19937 random(1);
    for (int round = 0; round < 20000; ++round) {
        Pair pair;
        for (int change = 0; change < 4; ++change) pair.word(4 * (random() % 64)) = random() >> (random() % 32);
        std::uint32_t total = 0;
        for (int i = 0; i < 3; ++i) {
            const auto taken = pair.back.drain(~0u, [&](auto&&, auto) { ++total; });
            if (!taken) break;
            pair.word(0) += random() % 300;
        }
        REQUIRE(total <= 256);
        std::uint32_t answers = 0;
        (void)pair.front.drain(~0u, [&](auto&&, auto) { ++answers; });
        REQUIRE(answers == 0);  // nothing was asked
    }
}
