#include <catch2/catch.hpp>

#include <liburing.h>

#include <algorithm>

#include "ring/loop.h"

using namespace caisson;
using namespace std::chrono_literals;

namespace {

// Both ends of a channel as the local port makes them: a pipe in each direction.
struct ChannelPair {
    EventChannel near, far;
    ChannelPair() {
        int to_near[2], to_far[2];
        REQUIRE(::pipe2(to_near, O_NONBLOCK | O_CLOEXEC) == 0);
        REQUIRE(::pipe2(to_far, O_NONBLOCK | O_CLOEXEC) == 0);
        near = EventChannel(EventChannel::Kind::local, DomainId(1), Port(1), Fd(to_near[0]), Fd(to_far[1]));
        far = EventChannel(EventChannel::Kind::local, DomainId(2), Port(1), Fd(to_far[0]), Fd(to_near[1]));
    }
};

struct Device : Polled {
    int work = 0, polls = 0, done = 0;
    bool poll() override {
        ++polls;
        if (work == 0) return false;
        --work, ++done;
        return true;
    }
    bool arm() override { return work > 0; }
};

std::unique_ptr<Loop> need_loop(Loop::Options options) {
    auto loop = Loop::make(options);
    REQUIRE(loop);
    return std::move(*loop);
}
std::unique_ptr<Loop> make_loop() { return need_loop({}); }

}  // namespace

TEST_CASE("a watch is level-triggered and a withdrawn one is never called again") {
    auto loop = make_loop();
    int ends[2];
    REQUIRE(::pipe2(ends, O_NONBLOCK) == 0);
    const Fd in(ends[0]), out(ends[1]);
    int calls = 0;
    auto handle = loop->watch(in.get(), POLLIN, [&](short) { ++calls; });
    REQUIRE(::write(out.get(), "x", 1) == 1);
    for (int i = 0; i < 3; ++i) loop->turn(1s);
    CHECK(calls >= 3);  // nobody read the byte, so it is reported again
    handle.reset();
    const int before = calls;
    for (int i = 0; i < 3; ++i) loop->turn(1ms);
    CHECK(calls == before);
}

TEST_CASE("a handler may withdraw itself") {
    auto loop = make_loop();
    int ends[2];
    REQUIRE(::pipe2(ends, O_NONBLOCK) == 0);
    const Fd in(ends[0]), out(ends[1]);
    int calls = 0;
    Loop::Handle handle;
    handle = loop->watch(in.get(), POLLIN, [&](short) { ++calls, handle.reset(); });
    REQUIRE(::write(out.get(), "x", 1) == 1);
    for (int i = 0; i < 3; ++i) loop->turn(1ms);
    CHECK(calls == 1);
}

TEST_CASE("timers fire once or again and again, and stop when withdrawn") {
    auto loop = make_loop();
    int once = 0, often = 0;
    auto first = loop->after(1ms, [&] { ++once; });
    auto second = loop->every(1ms, [&] { ++often; });
    while (often < 3) loop->turn(1s);
    CHECK(once == 1);
    second.reset();
    const int before = often;
    loop->turn(5ms);
    CHECK(often == before);
}

TEST_CASE("a served device is woken by its channel and armed before the loop sleeps") {
    auto loop = make_loop();
    ChannelPair pair;
    Device device;
    auto handle = loop->serve(device, {&pair.near});
    loop->turn(1ms);
    device.work = 5;
    REQUIRE(pair.far.notify());
    while (device.done < 5) loop->turn(1s);
    CHECK(device.done == 5);
    handle.reset();
    const int before = device.polls;
    loop->turn(1ms);
    CHECK(device.polls == before);
}

TEST_CASE("xsa_332_391_spurious events are looked at less and less often") {
    auto loop = make_loop();
    ChannelPair pair;
    Device device;
    auto handle = loop->serve(device, {&pair.near});
    const auto until = Loop::Clock::now() + 300ms;
    const auto sleeps_before = loop->sleeps();
    while (Loop::Clock::now() < until) {
        pair.far.notify();
        loop->turn(10ms);
    }
    // With back-off 1, 2, 4 ... ms fewer than 12 wake-ups fit into the time; the waits of 10 ms add at most 31.
    CHECK(loop->sleeps() - sleeps_before < 100);
    device.work = 1;  // real work is still found, by event or by the slow poll
    while (device.done < 1) loop->turn(2s);
    CHECK(device.done == 1);
}

TEST_CASE("a lost event costs a second, not a hang") {
    auto loop = make_loop();
    ChannelPair pair;
    Device device;
    auto handle = loop->serve(device, {&pair.near});
    loop->turn(Loop::Clock::duration::zero());
    device.work = 0;
    auto late = loop->after(1ms, [&] { device.work = 1; });  // and nobody notifies
    while (device.done == 0) loop->turn(1h);
    CHECK(device.done == 1);
}

TEST_CASE("a request to the kernel completes once, and a restricted ring refuses all others") {
    auto loop = make_loop();
    REQUIRE(loop->restrict_operations({IORING_OP_NOP}));
    int nop = 1, read = 1;
    std::byte buffer[1];
    loop->submit([](io_uring_sqe* sqe) { io_uring_prep_nop(sqe); }, [&](int result) { nop = result; });
    loop->submit([&](io_uring_sqe* sqe) { io_uring_prep_read(sqe, 0, buffer, 1, 0); },
                 [&](int result) { read = result; });
    while (nop == 1 || read == 1) loop->turn(1s);
    CHECK(nop == 0);
    CHECK(read == -EACCES);
}

TEST_CASE("a prepared request is answered once with its token, and not at all to who forgot it") {
    struct Asker : KernelAnswers {
        std::vector<std::uint32_t> tokens;
        void answered(std::uint32_t token, int) override { tokens.push_back(token); }
    } asker, gone;
    auto loop = make_loop();
    for (std::uint32_t token = 0; token < 1000; ++token) {  // more than the kernel's queue has places
        io_uring_prep_nop(loop->prepare(asker, token));
        io_uring_prep_nop(loop->prepare(gone, token));
    }
    loop->forget(gone);
    const std::size_t before = gone.tokens.size();
    while (asker.tokens.size() < 1000) loop->turn(1s);
    while (loop->turn(0s)) {
    }
    std::ranges::sort(asker.tokens);
    CHECK(std::ranges::adjacent_find(asker.tokens) == asker.tokens.end());
    CHECK(asker.tokens.back() == 999);
    CHECK(gone.tokens.size() == before);
}

TEST_CASE("a loop that waits for the kernel sleeps, however long it was told to poll") {
    struct Asker : KernelAnswers {
        int answers = 0;
        void answered(std::uint32_t, int) override { ++answers; }
    } asker;
    auto loop = need_loop({.spin = 1h});
    ChannelPair pair;
    Device device;
    const auto served = loop->serve(device, {&pair.near});
    __kernel_timespec soon{.tv_sec = 0, .tv_nsec = 20'000'000};
    io_uring_prep_timeout(loop->prepare(asker, 1), &soon, 0, 0);
    while (asker.answers == 0) loop->turn(1s);
    CHECK(device.polls < 100);
    CHECK(loop->sleeps() > 0);
}

TEST_CASE("the devices are polled before the last of many completions was seen") {
    struct Asker : KernelAnswers {
        int answers = 0;
        void answered(std::uint32_t, int) override { ++answers; }
    } asker;
    struct Watching : Polled {
        Asker& asker;
        std::vector<int> seen;
        explicit Watching(Asker& a) : asker(a) {}
        bool poll() override { return seen.push_back(asker.answers), false; }
        bool arm() override { return false; }
    } device(asker);
    auto loop = make_loop();
    ChannelPair pair;
    const auto served = loop->serve(device, {&pair.near});
    for (std::uint32_t token = 0; token < 64; ++token) io_uring_prep_nop(loop->prepare(asker, token));
    while (asker.answers < 64) loop->turn(1s);
    CHECK(std::ranges::count_if(device.seen, [](int n) { return n > 0 && n < 64; }) >= 7);
}

TEST_CASE("more can be registered before the first turn than the kernel's queue has places") {
    auto loop = make_loop();
    ChannelPair pair;
    int calls = 0;
    std::vector<Loop::Handle> handles;
    for (int i = 0; i < 1000; ++i) handles.push_back(loop->watch(pair.near.wait_fd(), POLLIN, [&](short) { ++calls; }));
    REQUIRE(pair.far.notify());
    for (int turns = 0; turns < 100 && calls < 1000; ++turns) loop->turn(1s);
    CHECK(calls >= 1000);
}

TEST_CASE("stop ends a running loop from another place") {
    auto loop = make_loop();
    auto timer = loop->after(1ms, [&] { loop->stop(); });
    loop->run();
    SUCCEED();
}
