// Our ring against libxen-dev's own macros as the peer: a full ring, the wrap at 2^32, and the same decision to notify.
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "tests/abi/ring_halves.h"

namespace caisson::abi {
namespace {

// Everything that a run of the script shows to the outside.
struct Record {
    std::vector<std::uint32_t> events;
    bool operator==(const Record&) const = default;
};

// A random but repeatable conversation between the two halves of one ring, in which each half does what is legal.
template <class FrontHalf, class BackHalf>
Record converse(std::uint32_t seed, RING_IDX first, int steps) {
    Page page(first);
    FrontHalf front(page, first);
    BackHalf back(page, first);
    std::mt19937 random(seed);
    std::uint32_t next = 0, expected_response = 0;
    std::vector<std::uint32_t> taken, answered;
    std::size_t served = 0;
    Record record;
    for (int step = 0; step < steps; ++step) {
        switch (random() % 6) {
            case 0: {  // push some, publish
                for (std::uint32_t n = std::min<std::uint32_t>(front.free(), random() % 17); n > 0; --n)
                    front.push(next++);
                record.events.push_back(100 + (front.publish() ? 1 : 0));
                record.events.push_back(front.free());
                break;
            }
            case 1: back.take(taken, random() % 17); break;
            case 2: {  // answer some of what was taken, publish
                for (std::size_t n = random() % 17; n > 0 && served < taken.size(); --n) back.push(taken[served++]);
                record.events.push_back(200 + (back.publish() ? 1 : 0));
                break;
            }
            case 3: front.take(answered); break;
            case 4: record.events.push_back(300 + (front.work_after_arming() ? 1 : 0)); break;
            case 5: record.events.push_back(400 + (back.work_after_arming() ? 1 : 0)); break;
        }
        for (; expected_response < answered.size(); ++expected_response)
            REQUIRE(answered[expected_response] == expected_response);
        record.events.push_back(static_cast<std::uint32_t>(taken.size()));
    }
    CHECK(answered.size() > static_cast<std::size_t>(steps) / 4);
    return record;
}

}  // namespace

TEST_CASE("our halves and Xen's macros decide alike, whichever side is whose and wherever the indices wrap") {
    const RING_IDX first = GENERATE(0u, 0xFFFFFF00u, 0x7FFFFFF0u);
    const std::uint32_t seed = GENERATE(range(1u, 9u));
    const Record reference = converse<XenFront, XenBack>(seed, first, 2000);
    CHECK(converse<OurFront, XenBack>(seed, first, 2000) == reference);
    CHECK(converse<XenFront, OurBack>(seed, first, 2000) == reference);
    CHECK(converse<OurFront, OurBack>(seed, first, 2000) == reference);
}

TEST_CASE("a ring filled by our frontend is full to Xen's backend, and the other way round") {
    const RING_IDX first = 0xFFFFFFF8u;  // wraps in the middle of the ring
    std::vector<std::uint32_t> taken;
    SECTION("our frontend") {
        Page page(first);
        OurFront front(page, first);
        XenBack back(page, first);
        REQUIRE(front.ring.size() == RING_SIZE(&back.ring));
        while (!front.ring.full()) front.push(front.indices.produced);
        CHECK(front.publish());
        CHECK(RING_REQUEST_PROD_OVERFLOW(&back.ring, page.shared()->req_prod) == 0);
        CHECK(RING_REQUEST_PROD_OVERFLOW(&back.ring, page.shared()->req_prod + 1) == 1);
        back.take(taken, 100);
        CHECK(taken.size() == front.ring.size());
        CHECK(taken.back() == first + 15);
    }
    SECTION("our backend") {
        Page page(first);
        XenFront front(page, first);
        OurBack back(page, first);
        while (!RING_FULL(&front.ring)) front.push(front.ring.req_prod_pvt);
        CHECK(front.publish());
        back.take(taken, 100);
        CHECK(taken.size() == back.ring.size());
        CHECK(taken.back() == first + 15);
        page.shared()->req_prod += 1;  // one more than a ring holds
        CHECK_FALSE(back.ring.available().has_value());
        CHECK(back.ring.broken());
    }
}

}  // namespace caisson::abi
