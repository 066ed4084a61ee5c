// block_trial MILLISECONDS TRIALS DEPTH BYTES OPERATION PARAMS: a load generator over our own frontend and backend, one
// CPU each, both polling. One JSON line a trial,
//     {"value": requests a second, "mean_us": of one request, "before": ns, "after": ns}
// where before and after are the round trip of a bare cache line between the two CPUs.
//
// OPERATION: read, write, randread, randwrite. PARAMS: the disk's `params`, such as null:1G or memory:256M. Data lies
// in the frontend's arena and is not looked at, as a generator over any other transport would do it.
#include <sys/mman.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <random>

#include "tests/support/block_pair.h"

using namespace caisson;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int front_cpu = 0, back_cpu = 1;
constexpr auto warm_up = std::chrono::milliseconds(100);

// Two processes and two cache lines.
double cache_line_round_trip_ns() {
    struct alignas(128) Line {
        std::atomic<std::uint64_t> value{0};
    };
    void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    auto* lines = new (memory) Line[2];
    constexpr std::uint64_t last = ~std::uint64_t{0};
    const pid_t child = ::fork();
    if (child == 0) {
        test::BlockSide::pin(back_cpu);
        for (std::uint64_t seen = 0, now; (now = lines[0].value.load(std::memory_order_acquire)) != last;)
            if (now != seen) lines[1].value.store(seen = now, std::memory_order_release);
        ::_exit(0);
    }
    const auto round = [&](std::uint64_t n) {
        lines[0].value.store(n, std::memory_order_release);
        while (lines[1].value.load(std::memory_order_acquire) != n) {
        }
    };
    round(1);  // the child is there
    const auto start = Clock::now(), end = start + std::chrono::milliseconds(3);
    std::uint64_t n = 1;
    while (Clock::now() < end)
        for (int i = 0; i < 64; ++i) round(++n);
    const std::chrono::duration<double, std::nano> took = Clock::now() - start;
    lines[0].value.store(last, std::memory_order_release);
    ::waitpid(child, nullptr, 0);
    ::munmap(memory, 4096);
    return took.count() / static_cast<double>(n);
}

struct Load {
    std::chrono::milliseconds time{};
    unsigned trials = 1, depth = 1;
    std::uint64_t bytes = 4096;
    bool random = false;
    block::Operation operation = block::Operation::read;
};

class Generator {
  public:
    Generator(block::Disk& disk, Loop& loop, const Load& load) : disk_(disk), loop_(loop), load_(load) {
        for (unsigned i = 0; i < load.depth; ++i) buffers_.push_back(test::need(disk.buffer(load.bytes)));
        blocks_ = disk.geometry().bytes() / load.bytes;
    }
    // Every block once, so that no trial pays for memory that was never touched.
    void fill() {
        std::uint64_t next = 0, done = 0;
        while (done < blocks_) {
            for (; next < blocks_ && next - done < load_.depth; ++next)
                if (disk_.submit({.operation = block::Operation::write,
                                  .offset = next * load_.bytes,
                                  .length = load_.bytes,
                                  .buffer = buffers_[next % load_.depth],
                                  .cookie = next}) != 0)
                    break;
            disk_.doorbell();
            done += disk_.poll([](std::uint64_t, int) {});
            (void)loop_.turn({});
        }
    }
    struct Result {
        std::uint64_t requests;
        double seconds;
    };
    Result run(std::chrono::milliseconds time) {
        const auto start = Clock::now();
        std::uint64_t done = 0, turns = 0;
        for (unsigned i = 0; i < load_.depth; ++i) submit(i);
        disk_.doorbell();
        bool over = false;
        for (unsigned outstanding = load_.depth; outstanding > 0;) {
            const unsigned ended = disk_.poll([&](std::uint64_t cookie, int error) {
                if (error != 0) throw std::runtime_error(std::string("a request failed: ") + std::strerror(error));
                ++done;
                over ? void(--outstanding) : submit(static_cast<unsigned>(cookie));
            });
            if (ended != 0) disk_.doorbell();
            if (++turns % 1024 == 0) {
                (void)loop_.turn({});
                over = over || Clock::now() - start >= time;
            }
        }
        return {done, std::chrono::duration<double>(Clock::now() - start).count()};
    }

  private:
    void submit(unsigned place) {
        const std::uint64_t block = load_.random ? random_() % blocks_ : next_++ % blocks_;
        const int error = disk_.submit({.operation = load_.operation,
                                        .offset = block * load_.bytes,
                                        .length = load_.bytes,
                                        .buffer = buffers_[place],
                                        .cookie = place});
        if (error != 0) throw std::runtime_error(std::string("submit: ") + std::strerror(error));
    }

    block::Disk& disk_;
    Loop& loop_;
    Load load_;
    std::vector<block::Disk::Buffer> buffers_;
    std::uint64_t blocks_ = 1, next_ = 0;
    std::minstd_rand random_{42};
};

void run(const Load& load, const std::string& params) {
    test::BlockSide::pin(front_cpu);
    test::BlockWorld world({.nodes = {{"params", params}},
                            .processes = true,
                            .worker_loop = {.spin = std::chrono::seconds(1)},
                            .worker_cpu = back_cpu});
    const auto disk = world.disk({.ring_order = 0});
    Generator generator(*disk, world.loop(), load);
    if (params.starts_with("memory:")) generator.fill();
    (void)generator.run(warm_up);
    for (unsigned i = 0; i < load.trials; ++i) {
        const double before = cache_line_round_trip_ns();
        const auto result = generator.run(load.time);
        const double rate = static_cast<double>(result.requests) / result.seconds;
        std::printf("{\"value\": %.0f, \"mean_us\": %.3f, \"before\": %.1f, \"after\": %.1f}\n", rate,
                    1e6 * load.depth / rate, before, cache_line_round_trip_ns());
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 7) {
        std::fprintf(stderr, "usage: block_trial MILLISECONDS TRIALS DEPTH BYTES OPERATION PARAMS\n");
        return 2;
    }
    const std::string operation = argv[5];
    Load load{.time = std::chrono::milliseconds(std::atoi(argv[1])),
              .trials = static_cast<unsigned>(std::atoi(argv[2])),
              .depth = static_cast<unsigned>(std::atoi(argv[3])),
              .bytes = static_cast<std::uint64_t>(std::atoll(argv[4])),
              .random = operation.starts_with("rand"),
              .operation = operation.ends_with("write") ? block::Operation::write : block::Operation::read};
    try {
        run(load, argv[6]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "block_trial: %s\n", error.what());
        return 1;
    }
    return 0;
}
