// ring_trial CONTENDER MILLISECONDS [TRIALS]: one JSON line a trial,
//     {"value": operations a second, "before": ns, "after": ns}
// where before and after are the round trip of a bare cache line between the two CPUs. "pingpong" is a contender, too.
// Exit code 3: this build does not have the contender.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/bench/trial.h"

namespace {

using Clock = std::chrono::steady_clock;

void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

// Two lines of code and two cache lines: what any transport's round trip is measured against.
class PingPong final : public bench::Contender {
  public:
    std::uint64_t front(const std::atomic<bool>& stop) override {
        std::uint64_t n = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            ping_.store(n + 1, std::memory_order_release);
            while (pong_.load(std::memory_order_acquire) != n + 1)
                if (stop.load(std::memory_order_relaxed)) return n;
            ++n;
        }
        return n;
    }
    void back(const std::atomic<bool>& stop) override {
        for (std::uint64_t n = 1; !stop.load(std::memory_order_relaxed); ++n) {
            while (ping_.load(std::memory_order_acquire) != n)
                if (stop.load(std::memory_order_relaxed)) return;
            pong_.store(n, std::memory_order_release);
        }
    }

  private:
    alignas(128) std::atomic<std::uint64_t> ping_{0};
    alignas(128) std::atomic<std::uint64_t> pong_{0};
};

std::unique_ptr<bench::Contender> make(std::string_view name) {
    if (name == "pingpong") return std::make_unique<PingPong>();
    for (auto* from : {bench::make_ours, bench::make_unchecked, bench::make_xen, bench::make_private})
        if (auto contender = from(name)) return contender;
    return nullptr;
}

// Operations a second of a fresh contender.
double run(std::string_view name, std::chrono::milliseconds time) {
    const auto contender = make(name);
    std::atomic<bool> stop{false}, ready{false};
    std::thread back([&] {
        pin(1);
        ready = true;
        contender->back(stop);
    });
    while (!ready) std::this_thread::yield();
    std::uint64_t count = 0;
    std::thread front([&] {
        pin(0);
        count = contender->front(stop);
    });
    const auto start = Clock::now();
    std::this_thread::sleep_for(time);
    stop = true;
    const std::chrono::duration<double> took = Clock::now() - start;
    front.join();
    back.join();
    return static_cast<double>(count) / took.count();
}

// In ns; a second when the other CPU was not given to us at all.
double probe() {
    double rate = 0;
    for (int tries = 0; tries < 3 && rate == 0; ++tries) rate = run("pingpong", std::chrono::milliseconds(3));
    return 1e9 / std::max(rate, 1.0);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: ring_trial CONTENDER MILLISECONDS [TRIALS]\n");
        return 2;
    }
    if (make(argv[1]) == nullptr) return 3;
    const int trials = argc > 3 ? std::atoi(argv[3]) : 1;
    for (int i = 0; i < trials; ++i) {
        const double before = probe();
        const double value = run(argv[1], std::chrono::milliseconds(std::atoi(argv[2])));
        std::printf("{\"value\": %.1f, \"before\": %.1f, \"after\": %.1f}\n", value, before, probe());
        std::fflush(stdout);
    }
}
