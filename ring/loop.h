// The event loop of a thread: one io_uring for event channels, descriptors and timers, and the devices it polls.
//
// Turn: deliver what the kernel completed, poll every device once (each does at most its budget, so a storm on one
// costs the others one budget), and when nobody made progress for Options::spin, arm every doorbell and sleep. Polling
// makes no system call.
//
// Threads: a loop belongs to the thread that runs it; only stop() may be called from others.
// Lifetime: a Watch, Timer or Served that is destroyed is never called again, even if it was already due.
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "protocols/words.h"
#include "ring/event_channel.h"

struct io_uring_sqe;

namespace caisson {

// Something with rings: what a device implements to be served by a loop.
class Polled {
  public:
    virtual ~Polled() = default;
    // Up to a budget of work. True when some was done: the loop comes back before it sleeps.
    virtual bool poll() = 0;
    // Ask the peers to notify. True when work is there already ("arm the doorbell, then look again").
    virtual bool arm() = 0;
};

// Hears of the end of what it asked the kernel for with Loop::prepare().
class KernelAnswers {
  public:
    virtual ~KernelAnswers() = default;
    virtual void answered(std::uint32_t token, int result) = 0;  // cqe->res
};

class Loop {
    struct Impl;

  public:
    using Clock = std::chrono::steady_clock;

    struct Options {
        unsigned entries = 256;
        std::chrono::microseconds spin{
            0};  // how long to poll idle rings before sleeping, unless the kernel works for us
    };
    static Result<std::unique_ptr<Loop>> make(Options options);
    static Result<std::unique_ptr<Loop>> make() { return make(Options{}); }
    ~Loop();

    // A registration; destroying it withdraws it.
    class Handle {
      public:
        Handle() = default;
        Handle(Handle&& other) noexcept : impl_(std::move(other.impl_)), id_(std::exchange(other.id_, 0)) {}
        Handle& operator=(Handle&& other) noexcept;
        ~Handle() { reset(); }
        void reset();
        explicit operator bool() const { return id_ != 0; }

      private:
        friend class Loop;
        Handle(std::weak_ptr<Impl> impl, std::uint64_t id) : impl_(std::move(impl)), id_(id) {}
        std::weak_ptr<Impl> impl_;
        std::uint64_t id_ = 0;
    };

    // Calls `ready(revents)` while `fd` is ready (level-triggered: it is looked at again after each call). The fd must
    // outlive the handle.
    [[nodiscard]] Handle watch(int fd, short events, std::function<void(short)> ready);
    [[nodiscard]] Handle after(Clock::duration delay, std::function<void()> due);
    [[nodiscard]] Handle every(Clock::duration period, std::function<void()> due);

    // Serves a device: polls it each turn, arms it before sleeping, wakes for its channels. An event is spurious when
    // there was no progress since the one before it (its own work may have been found earlier, by a poll that something
    // else was the reason for): from the second in a row the channel is looked at again only after 1, 2, 4 ... 1000 ms
    // (XSA-332, XSA-391). A slow timer (1 s) polls everything once more, so that a lost event costs a second, not a
    // hang. `device` and the channels must outlive the handle.
    [[nodiscard]] Handle serve(Polled& device, std::initializer_list<const EventChannel*> channels);

    // One request to the kernel: `prepare` fills the sqe, `done` gets the result (cqe->res) exactly once. Buffers must
    // stay until then, whatever happens to the caller.
    void submit(std::function<void(io_uring_sqe*)> prepare, std::function<void(int)> done);

    // The same for those who ask a hundred thousand times a second: an entry to fill at once, before any other call of
    // this loop, and no allocation. What the entry points at is only read when the turn ends: it has to stay until
    // then, buffers until answered().
    io_uring_sqe* prepare(KernelAnswers& who, std::uint32_t token);
    // Not at the turn's end but now: what was prepared goes to the kernel.
    void submit_prepared();
    // The kernel gives up what `who` prepared and can be given up (a worker's policy needs IORING_OP_ASYNC_CANCEL): it
    // is answered soon, with -ECANCELED where nothing of it was done.
    void cancel(KernelAnswers& who);
    // Waits until the kernel is done with everything that `who` prepared: its buffers may go, it hears of nothing more.
    void forget(KernelAnswers& who);

    // From here on the ring accepts only these operations (IORING_OP_*; those the loop needs itself are added) and no
    // registration; from then on its only system call is io_uring_enter. Before the first turn. Part of sealing a
    // worker.
    Status restrict_operations(std::span<const std::uint8_t> operations);
    Status restrict_operations(std::initializer_list<std::uint8_t> operations) {
        return restrict_operations(std::span(operations.begin(), operations.size()));
    }

    void run();   // until stop()
    void stop();  // async-signal-safe, any thread
    // One turn; waits at most `wait` for something to happen. True when something did.
    bool turn(Clock::duration wait);

    std::uint64_t sleeps() const;  // how often the loop went to sleep: for idle checks and statistics

  private:
    explicit Loop(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
    std::shared_ptr<Impl> impl_;
};

}  // namespace caisson
