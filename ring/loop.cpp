#include "ring/loop.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <unordered_map>
#include <vector>

#include "ring/detail/kernel_queue.h"
#include "ring/fd.h"

namespace caisson {

using namespace std::chrono_literals;

namespace {

constexpr auto slow_poll = 1s;            // a lost event costs this much
constexpr unsigned first_backed_off = 2;  // the second spurious event in a row is the first that waits
constexpr auto longest_back_off = 1000ms;
constexpr unsigned most_reaped = 8;  // completions a round, before the devices are polled
constexpr int polls_a_look = 64;     // at the clock while spinning: in a PV domain that can be a call to Xen

Loop::Clock::duration back_off(unsigned spurious) {
    if (spurious < first_backed_off) return 0ms;
    return std::min<Loop::Clock::duration>(1ms * (1u << std::min(spurious - first_backed_off, 10u)), longest_back_off);
}

struct Watched {
    int fd = -1;
    short events = 0;
    std::function<void(short)> ready;
    bool again = true;  // level-triggered: looked at again after each call
    bool armed = false;
};

struct Timed {
    Loop::Clock::duration period{};  // zero: once
    std::function<void()> due;
};

// A channel of a served device: taken out of the ring while its event is being worked on, put back afterwards.
struct Bell {
    const EventChannel* channel;
    std::uint64_t watch = 0;
    unsigned spurious = 0;
    bool rang = false;    // an event was taken; look at the progress of the next poll, then listen again
    bool worked = false;  // there was progress since the last event, and the next one may have been sent for it
};

struct Served {
    std::uint64_t id = 0;
    Polled* device = nullptr;  // null: withdrawn
    std::vector<Bell> bells;
};

}  // namespace

struct Loop::Impl {
    explicit Impl(Options o) : options(o) {}

    Options options;
    std::uint64_t next_id = 1;
    std::unordered_map<std::uint64_t, std::shared_ptr<Watched>> watches;
    std::unordered_map<std::uint64_t, std::shared_ptr<Timed>> timers;
    std::multimap<Clock::time_point, std::uint64_t> deadlines;
    std::unordered_map<std::uint64_t, std::function<void(int)>> requests;
    std::vector<std::unique_ptr<Served>> served;
    bool some_withdrawn = false;
    std::atomic<bool> stopping{false};
    Fd stop_event;
    std::uint64_t stop_watch = 0;
    std::uint64_t sleeps = 0;
    Clock::time_point looked{};  // at the clock, for the timers; the last time
    detail::KernelQueue kernel;  // the first to go: what it was asked for may write into what the rest holds

    void listen(std::uint64_t id, Watched& watch) {
        if (watch.armed) return;
        io_uring_sqe* entry = kernel.entry();
        io_uring_prep_poll_add(entry, watch.fd, static_cast<unsigned>(watch.events));
        io_uring_sqe_set_data64(entry, id);
        kernel.may_wait();
        watch.armed = true;
    }

    std::uint64_t add_watch(int fd, short events, std::function<void(short)> ready, bool now = true) {
        const std::uint64_t id = next_id++;
        auto& watch = watches[id] = std::make_shared<Watched>(fd, events, std::move(ready));
        if (now) listen(id, *watch);
        return id;
    }

    std::uint64_t add_timer(Clock::duration delay, Clock::duration period, std::function<void()> due) {
        const std::uint64_t id = next_id++;
        timers[id] = std::make_shared<Timed>(period, std::move(due));
        looked = Clock::now();
        deadlines.emplace(looked + delay, id);
        return id;
    }

    void withdraw_watch(std::uint64_t id) {
        const auto it = watches.find(id);
        if (it == watches.end()) return;
        const bool armed = it->second->armed;
        watches.erase(it);
        if (!armed) return;
        io_uring_sqe* entry = kernel.entry();
        io_uring_prep_poll_remove(entry, id);
        io_uring_sqe_set_data64(entry, 0);
        kernel.submit();  // the descriptor may be closed right after this
    }

    void withdraw(std::uint64_t id) {
        withdraw_watch(id);
        timers.erase(id);  // its deadline finds nothing when it comes
        for (auto& one : served) {
            if (one->id != id || one->device == nullptr) continue;
            one->device = nullptr;
            some_withdrawn = true;
            for (const Bell& bell : one->bells) withdraw_watch(bell.watch);
        }
    }

    void complete(std::uint64_t id, int result) {
        if (const auto request = requests.find(id); request != requests.end()) {
            const auto done = std::move(request->second);
            requests.erase(request);
            done(result);
            return;
        }
        const auto it = watches.find(id);
        if (it == watches.end()) return;  // withdrawn meanwhile
        const std::shared_ptr<Watched> watch = it->second;
        watch->armed = false;
        watch->ready(result < 0 ? static_cast<short>(POLLERR) : static_cast<short>(result));
        // Level-triggered: look again, unless the handler withdrew it or (a bell) wants to be put back later.
        if (watch->again && watches.contains(id)) listen(id, *watch);
    }

    // What many requests have ended with shall begin to go out before the last of them was seen.
    bool reap() {
        const unsigned most = served.empty() ? std::numeric_limits<unsigned>::max() : most_reaped;
        return kernel.reap(most, [this](std::uint64_t id, int result) { complete(id, result); });
    }

    bool run_timers(Clock::time_point now) {
        bool any = false;
        while (!deadlines.empty() && deadlines.begin()->first <= now) {
            const std::uint64_t id = deadlines.begin()->second;
            deadlines.erase(deadlines.begin());
            const auto it = timers.find(id);
            if (it == timers.end()) continue;
            any = true;
            const std::shared_ptr<Timed> timer = it->second;
            if (timer->period > Clock::duration::zero())
                deadlines.emplace(now + timer->period, id);
            else
                timers.erase(it);
            timer->due();
        }
        return any;
    }

    // Puts a bell back after its event was worked on; a spurious one only after a while.
    void listen_again(Served& one, std::size_t index, bool progress) {
        Bell& bell = one.bells[index];
        bell.rang = false;
        bell.spurious = progress ? 0 : bell.spurious + 1;
        const auto delay = back_off(bell.spurious);
        if (delay == Clock::duration::zero()) return put_back(bell);
        add_timer(delay, {}, [this, id = one.id, index] {
            for (auto& each : served)
                if (each->id == id && each->device != nullptr) put_back(each->bells[index]);
        });
    }
    void put_back(Bell& bell) {
        bell.channel->unmask();
        const auto it = watches.find(bell.watch);
        if (it != watches.end()) listen(bell.watch, *it->second);
    }

    bool poll_devices() {
        bool any = false;
        for (std::size_t i = 0; i < served.size(); ++i) {  // a device may be added or withdrawn by what it polls
            Served& one = *served[i];
            if (one.device == nullptr) continue;
            const bool progress = one.device->poll();
            any |= progress;
            for (std::size_t b = 0; one.device != nullptr && b < one.bells.size(); ++b) {
                Bell& bell = one.bells[b];
                bell.worked |= progress;
                if (bell.rang) listen_again(one, b, std::exchange(bell.worked, false));
            }
        }
        if (std::exchange(some_withdrawn, false))
            std::erase_if(served, [](const auto& one) { return one->device == nullptr; });
        return any;
    }

    bool arm_devices() {
        bool any = false;
        for (std::size_t i = 0; i < served.size(); ++i)
            if (served[i]->device != nullptr) any |= served[i]->device->arm();
        return any;
    }

    // The clock is looked at as rarely as possible: in a PV domain that can be a call to Xen.
    bool round(bool with_timers = true) {
        if (kernel.submission_due()) kernel.submit();
        const auto reaped = reap();
        const auto timed = with_timers && !deadlines.empty() && run_timers(looked = Clock::now());
        return poll_devices() || reaped || timed;
    }

    // Not while the kernel has something of ours to do: it wakes us, and it may need this very processor for it (the
    // work queue on which a file system ends direct writes is bound to one).
    bool spin() {
        if (kernel.has_asked() || !requests.empty()) return false;
        kernel.submit();
        const auto until = Clock::now() + options.spin;
        do {
            for (int i = 0; i < polls_a_look; ++i) {
                const bool reaped = reap();
                if (poll_devices() || reaped) return true;
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
        } while ((looked = Clock::now()) < until);
        return false;
    }

    // Right after a round in which nothing happened. True when a timer may be due; else the next round will see.
    bool sleep(Clock::duration wait) {
        if (kernel.has_put_aside()) return true;
        if (!deadlines.empty())
            wait = std::min(wait, std::max(deadlines.begin()->first - looked, Clock::duration::zero()));
        if (!served.empty()) wait = std::min<Clock::duration>(wait, slow_poll);
        ++sleeps;
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait);
        return !kernel.submit_and_sleep(
            {.tv_sec = seconds.count(), .tv_nsec = std::chrono::nanoseconds(wait - seconds).count()});
    }
};

Result<std::unique_ptr<Loop>> Loop::make(Options options) {
    auto impl = std::make_shared<Impl>(options);
    if (const int error = impl->kernel.make(options.entries); error < 0)
        return host_fault(-error, "io_uring_setup (is kernel.io_uring_disabled 0?)");
    impl->stop_event.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!impl->stop_event) return host_fault(errno, "eventfd");
    return std::unique_ptr<Loop>(new Loop(std::move(impl)));
}

Loop::~Loop() = default;

Status Loop::restrict_operations(std::span<const std::uint8_t> operations) {
    std::vector<std::uint8_t> allowed{IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE};  // the loop's own
    allowed.insert(allowed.end(), operations.begin(), operations.end());
    const int error = impl_->kernel.restrict_to(allowed);
    if (error < 0) return host_fault(-error, "io_uring restrictions");
    impl_->kernel.enable();
    return {};
}

Loop::Handle Loop::watch(int fd, short events, std::function<void(short)> ready) {
    return {impl_, impl_->add_watch(fd, events, std::move(ready))};
}
Loop::Handle Loop::after(Clock::duration delay, std::function<void()> due) {
    return {impl_, impl_->add_timer(delay, {}, std::move(due))};
}
Loop::Handle Loop::every(Clock::duration period, std::function<void()> due) {
    return {impl_, impl_->add_timer(period, period, std::move(due))};
}

Loop::Handle Loop::serve(Polled& device, std::initializer_list<const EventChannel*> channels) {
    auto& one = *impl_->served.emplace_back(std::make_unique<Served>());
    one.id = impl_->next_id++;
    one.device = &device;
    for (const EventChannel* channel : channels) one.bells.push_back({.channel = channel});
    for (Bell& bell : one.bells) {  // the bells no longer move
        bell.watch = impl_->add_watch(bell.channel->wait_fd(), POLLIN, [&bell](short) {
            bell.channel->clear();
            bell.rang = true;
        });
        impl_->watches[bell.watch]->again = false;  // put back after the work
        bell.channel->unmask();                     // a predecessor may have died with an event in its hands
    }
    return {impl_, one.id};
}

void Loop::submit(std::function<void(io_uring_sqe*)> prepare, std::function<void(int)> done) {
    const std::uint64_t id = impl_->next_id++;
    io_uring_sqe* entry = impl_->kernel.entry();
    prepare(entry);
    io_uring_sqe_set_data64(entry, id);
    impl_->requests.emplace(id, std::move(done));
}

io_uring_sqe* Loop::prepare(KernelAnswers& who, std::uint32_t token) { return impl_->kernel.entry(who, token); }

void Loop::submit_prepared() {
    impl_->kernel.enable();
    if (impl_->kernel.submission_due()) impl_->kernel.submit();
}

void Loop::cancel(KernelAnswers& who) { impl_->kernel.cancel(who); }
void Loop::forget(KernelAnswers& who) { impl_->kernel.forget(who); }

bool Loop::turn(Clock::duration wait) {
    const std::shared_ptr<Impl> alive = impl_;  // a handler may destroy the loop's last handle
    alive->kernel.enable();
    if (alive->round()) return true;
    if (alive->options.spin.count() > 0 && !alive->served.empty() && wait > Clock::duration::zero() && alive->spin())
        return true;
    if (alive->arm_devices()) return true;
    bool with_timers = true;
    if (wait > Clock::duration::zero())
        with_timers = alive->sleep(wait);
    else
        alive->kernel.submit();
    return alive->round(with_timers);
}

void Loop::run() {
    impl_->stop_watch = impl_->add_watch(impl_->stop_event.get(), POLLIN, [](short) {});
    impl_->watches[impl_->stop_watch]->again = false;
    while (!impl_->stopping.load(std::memory_order_acquire)) turn(1h);
    impl_->withdraw_watch(impl_->stop_watch);
    impl_->stopping.store(false, std::memory_order_release);
    std::uint64_t count = 0;
    (void)!::read(impl_->stop_event.get(), &count, sizeof count);
}

void Loop::stop() {
    impl_->stopping.store(true, std::memory_order_release);
    const std::uint64_t one = 1;
    (void)!::write(impl_->stop_event.get(), &one, sizeof one);
}

std::uint64_t Loop::sleeps() const { return impl_->sleeps; }

Loop::Handle& Loop::Handle::operator=(Handle&& other) noexcept {
    if (this == &other) return *this;
    reset();
    impl_ = std::move(other.impl_);
    id_ = std::exchange(other.id_, 0);
    return *this;
}

void Loop::Handle::reset() {
    const std::uint64_t id = std::exchange(id_, 0);
    if (const auto impl = impl_.lock(); impl && id != 0) impl->withdraw(id);
    impl_.reset();
}

}  // namespace caisson
