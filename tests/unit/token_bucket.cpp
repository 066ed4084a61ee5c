// The rate, the burst and the debt of a token bucket.
#include "ring/token_bucket.h"

#include <catch2/catch.hpp>

using caisson::TokenBucket;
using namespace std::chrono_literals;

TEST_CASE("a token bucket gives its rate and no more, and saves up a burst") {
    TokenBucket bucket(1000, 50);
    TokenBucket::Clock::time_point now{1s};
    CHECK(bucket.left(now) == 50);
    bucket.take(50);
    CHECK(bucket.left(now) == 0);
    now += 10ms;
    CHECK(bucket.left(now) == 10);
    now += 1h;
    CHECK(bucket.left(now) == 50);
    bucket.take(150);  // a debt of 100
    now += 100ms;
    CHECK(bucket.left(now) == 0);
    now += 1ms;
    CHECK(bucket.left(now) == 1);
}

TEST_CASE("a rate holds in the long run, whatever the size of a batch") {
    TokenBucket bucket(1'000'000, 1'000'000);
    auto now = TokenBucket::Clock::now();
    std::uint64_t sent = 0;
    const auto start = now;
    while (now - start < 100s) {
        if (bucket.ready(now)) {
            bucket.take(300'000);
            sent += 300'000;
        } else {
            const auto wait = bucket.wait();
            REQUIRE(wait > 0s);
            REQUIRE(wait <= 1s);
            now += wait;
        }
    }
    CHECK(sent >= 99'000'000);
    CHECK(sent <= 101'700'000);  // and the first burst
}

TEST_CASE("a bucket without a limit is never empty") {
    TokenBucket free;
    CHECK_FALSE(free.limited());
    for (int i = 0; i < 1000; ++i) free.take(1 << 30);
    CHECK(free.ready(TokenBucket::Clock::now()));
    CHECK(free.wait() == 0s);
}
