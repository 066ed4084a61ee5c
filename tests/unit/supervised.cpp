// What a supervisor decides of one service VM, with times and sights made up.
#include "domains/supervisor/supervised.h"

#include <catch2/catch.hpp>
#include <random>

using namespace caisson;
using namespace caisson::supervisor;
using namespace std::chrono_literals;
using Wish = Supervised::Wish;

namespace {

struct Life {
    Supervised vm;
    Clock::time_point now{1h};
    Sight sight{};
    unsigned beats = 0;

    Wish after(Clock::duration time) {
        now += time;
        return vm.look(sight, now);
    }
    Wish begins(std::uint16_t id) {
        sight = {.domain = DomainId{id}, .state = "starting"};
        return after(0s);
    }
    Wish beats_for(Clock::duration time) {
        sight.state = "ready";
        Wish wish = Wish::nothing;
        for (const auto end = now + time; now < end && wish == Wish::nothing;) {
            sight.heartbeat = std::to_string(++beats);
            wish = after(2s);
        }
        return wish;
    }
    Wish dies() {
        sight = {};
        return after(0s);
    }
};

}  // namespace

TEST_CASE("A service VM that is not there is made, and one that is there is taken as it is") {
    Life one;
    CHECK(one.after(0s) == Wish::create);
    CHECK(one.begins(3) == Wish::nothing);
    CHECK(one.vm.state() == State::starting);
    CHECK(one.vm.domain() == DomainId{3});
    CHECK(one.beats_for(10s) == Wish::nothing);
    CHECK(one.vm.state() == State::ready);
    CHECK(one.vm.restarts() == 0);
}

TEST_CASE("A service VM that dies is made again at once, and waits longer each time when none of its lives lasts") {
    Life one;
    one.begins(3);
    one.beats_for(100s);
    CHECK(one.dies() == Wish::create);  // it had lasted
    std::vector<std::int64_t> pauses;
    for (std::uint16_t id = 4; id < 14; ++id) {
        one.begins(id);
        one.beats_for(10s);
        one.dies();
        pauses.push_back((one.vm.due() - one.now) / 1s);
        CHECK(one.vm.look(one.sight, one.vm.due() - 1ms) == (pauses.back() == 0 ? Wish::create : Wish::nothing));
        CHECK(one.vm.look(one.sight, one.vm.due()) == Wish::create);
        one.now = one.vm.due();
    }
    CHECK(pauses == std::vector<std::int64_t>{1, 2, 4, 8, 16, 32, 60, 60, 60, 60});
    CHECK(one.vm.restarts() == 11);
    one.begins(20);
    one.beats_for(100s);
    CHECK(one.dies() == Wish::create);
}

TEST_CASE("A service VM whose heart stands still is destroyed, whatever its state says") {
    Life one;
    one.begins(3);
    one.beats_for(20s);
    CHECK(one.after(9s) == Wish::nothing);
    CHECK(one.after(1s) == Wish::destroy);
    CHECK(one.vm.state() == State::ill);
    CHECK(one.vm.why() == "its heart has stood still for 10 s");
    one.sight.heartbeat = "it beats again";
    CHECK(one.after(1s) == Wish::destroy);
    CHECK(one.dies() == Wish::create);
    CHECK(one.vm.why() == "its heart has stood still for 10 s");
}

TEST_CASE("A service VM whose heart has beaten once, before anybody looked, is known to have one") {
    Life one;
    one.sight = {.domain = DomainId{3}, .state = "ready", .heartbeat = "1"};
    CHECK(one.after(0s) == Wish::nothing);
    CHECK(one.after(10s) == Wish::destroy);
}

TEST_CASE("A service VM that says that it failed, or is not ready in time, is destroyed") {
    Life one;
    one.begins(3);
    SECTION("failed") {
        one.sight.state = "failed";
        one.sight.why = "no such module\x1b";
        CHECK(one.after(1s) == Wish::destroy);
        CHECK(one.vm.why() == "it failed: no such module\x1b");
    }
    SECTION("late") {
        CHECK(one.after(59s) == Wish::nothing);
        CHECK(one.after(1s) == Wish::destroy);
    }
    SECTION("ready once, and then no more") {
        one.beats_for(20s);
        one.sight.state = "starting";
        CHECK(one.after(1s) == Wish::nothing);
        CHECK(one.after(58s) == Wish::nothing);
        CHECK(one.after(1s) == Wish::destroy);
    }
}

TEST_CASE("A driver domain that says nothing of its health is well as long as it is there, unless it ever did") {
    Life one;
    one.sight.domain = DomainId{3};
    CHECK(one.after(0s) == Wish::nothing);
    CHECK(one.after(59s) == Wish::nothing);
    CHECK(one.vm.state() == State::starting);
    CHECK(one.after(1s) == Wish::nothing);
    CHECK(one.vm.state() == State::ready);
    CHECK(one.after(1h) == Wish::nothing);
    one.begins(4);
    one.beats_for(10s);
    one.dies();
    one.sight.domain = DomainId{5};
    CHECK(one.after(0s) == Wish::nothing);
    CHECK(one.after(60s) == Wish::destroy);
}

TEST_CASE("A service VM that is replaced on purpose is no crash loop") {
    Life one;
    for (std::uint16_t id = 3; id < 9; ++id) {
        one.begins(id);
        one.beats_for(2s);
        one.vm.replace("on purpose");
        CHECK(one.after(0s) == Wish::destroy);
        CHECK(one.dies() == Wish::create);
    }
}

TEST_CASE("What cannot be made is tried again, later each time") {
    Life one;
    std::vector<std::int64_t> pauses;
    for (int tries = 0; tries < 4; ++tries) {
        CHECK(one.after(0s) == Wish::create);
        one.vm.not_created("no such file", one.now);
        pauses.push_back((one.vm.due() - one.now) / 1s);
        CHECK(one.after(0s) == Wish::nothing);
        one.now = one.vm.due();
    }
    CHECK(pauses == std::vector<std::int64_t>{1, 2, 4, 8});
    CHECK(one.vm.why() == "no such file");
    CHECK(one.vm.restarts() == 0);
}

TEST_CASE("Whatever a domain writes of its health, one wish follows, and it is never made while it is there") {
    std::mt19937 random(5);
    const std::vector<std::string> words{"",        "ready", "failed", "starting", "stopping", std::string(4096, 'x'),
                                         "\x01\xff"};
    const auto word = [&] { return words[random() % words.size()]; };
    Life one;
    for (int step = 0; step < 20'000; ++step) {
        if (random() % 8 == 0)
            one.sight.domain =
                random() % 2 == 0 ? std::nullopt : std::optional(DomainId{std::uint16_t(random() % 3 + 1)});
        one.sight.state = word();
        one.sight.why = word();
        one.sight.heartbeat = word();
        const auto wish = one.after(std::chrono::milliseconds(random() % 3000));
        REQUIRE((wish != Wish::create || !one.sight.domain));
        REQUIRE((wish != Wish::destroy || one.sight.domain));
        REQUIRE(one.vm.domain() == one.sight.domain);
    }
}
