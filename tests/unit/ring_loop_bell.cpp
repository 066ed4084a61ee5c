// A served device sleeps and is woken by its channel: not once, but every time.
#include <catch2/catch.hpp>

#include "ring/loop.h"
#include "tests/support/lending_hypervisor.h"

using namespace caisson;

TEST_CASE("a channel wakes its sleeping device again and again") {
    struct Counter final : Polled {
        bool poll() override { return std::exchange(work, false); }
        bool arm() override { return false; }
        bool work = false;
    } device;
    auto loop = std::move(*Loop::make());
    auto channel = test::LooseChannel::make();
    const auto served = loop->serve(device, {&channel.ours});
    for (int i = 0; i < 20; ++i) (void)loop->turn({});
    for (int i = 0; i < 50; ++i) {
        device.work = true;  // so that no event is spurious
        (void)channel.theirs.notify();
        (void)loop->turn(std::chrono::seconds(10));
        (void)loop->turn({});
        REQUIRE_FALSE(channel.ours.clear());  // taken by its bell: the slow poll takes no events
    }
}

TEST_CASE("an event for work that was already found is not spurious") {
    struct Counter final : Polled {
        bool poll() override { return std::exchange(work, false); }
        bool arm() override { return false; }
        bool work = false;
    } device;
    auto loop = std::move(*Loop::make());
    auto channel = test::LooseChannel::make();
    const auto served = loop->serve(device, {&channel.ours});
    for (int i = 0; i < 20; ++i) (void)loop->turn({});
    for (int i = 0; i < 50; ++i) {
        device.work = true;  // published, and found by a poll that something else was the reason for ...
        for (int turns = 0; turns < 5; ++turns) (void)loop->turn({});
        REQUIRE_FALSE(device.work);
        (void)channel.theirs.notify();  // ... before its event comes
        for (int turns = 0; turns < 5; ++turns) (void)loop->turn({});
        REQUIRE_FALSE(channel.ours.clear());  // taken at once, every time: the next one may be all that wakes us
    }
}
