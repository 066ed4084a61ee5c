// A program in the guest that uses a disk and checks every byte of it: through the library (`xvdb`: block::open_disk)
// or through the file (`/dev/xvda`: pread, pwrite, fsync, fallocate with O_DIRECT, in several threads).
//
// Usage: block_load DISK MODEL SEED [no-discard]
//
// It reads the whole disk, says "ready SECTORS", works until a line comes on its standard input, reads the whole disk
// again and ends. Meanwhile it says, a line each, with CLOCK_MONOTONIC in seconds:
//     probe ASKED ENDED      a read of one sector beside the work: one a millisecond, but never two at a time
//     done WHEN COUNT BYTES  what was done so far, ten times a second
//     error WORDS            a request failed
// and at the end: end CHECKED LOST TORN ELSEWHERE ERRORS DONE WORDS...
// Exit code 1: it could not open the disk. A request that is not answered is for whoever waits for these lines to see.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include "frontends/block/disk.h"
#include "tests/chaos/block_shadow.h"

namespace caisson::chaos {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t step = 2048;  // sectors of one read of the whole disk
constexpr unsigned depth = 16;
constexpr std::uint64_t most_bytes = 2 << 20;  // under way, so that a probe never waits for the arena's pages

double seconds(Clock::time_point when) { return std::chrono::duration<double>(when.time_since_epoch()).count(); }

void say(std::string line) {
    line += '\n';
    (void)!::write(STDOUT_FILENO, line.data(), line.size());  // whole lines, whatever thread
}

bool asked_to_stop() {
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    return ::poll(&input, 1, 0) > 0;
}

struct Aligned {
    explicit Aligned(std::size_t size) : bytes(static_cast<std::byte*>(std::aligned_alloc(4096, size)), size) {
        if (bytes.data() == nullptr) throw std::bad_alloc();
    }
    ~Aligned() { std::free(bytes.data()); }
    Aligned(const Aligned&) = delete;
    std::span<std::byte> bytes;
};

struct Tally {
    std::atomic<std::uint64_t> errors = 0, requests = 0, bytes = 0;
    void count(const Piece& piece) {
        ++requests;
        if (piece.what == What::read || piece.what == What::write) bytes += piece.count * sector;
    }
    void say_done() const {
        say(fmt::format("done {:.6f} {} {}", seconds(Clock::now()), requests.load(), bytes.load()));
    }
};

int say_end(const Shadow& shadow, const Tally& tally) {
    const Findings& found = shadow.findings();
    say(fmt::format("end {} {} {} {} {} {} {}", found.checked, found.lost, found.torn, found.elsewhere,
                    tally.errors.load(), tally.requests.load(), found.first));
    return 0;
}

// ---- Through the library: one thread, many requests -----------------------------------------------------------------

class LibraryLoad {
  public:
    LibraryLoad(block::OpenDisk& opened, const std::string& model, std::uint32_t seed)
        : disk_(*opened.disk), loop_(*opened.loop), shadow_(model, disk_.geometry().sectors, seed) {}

    int run() {
        read_all();
        say(fmt::format("ready {}", shadow_.sectors()));
        const auto probes = loop_.every(1ms, [this] { probe(); });
        const auto tells = loop_.every(100ms, [this] { tally_.say_done(); });
        while (!asked_to_stop()) {
            fill_up();
            loop_.turn(10ms);
        }
        while (under_way_ > 0 || probing_) loop_.turn(10ms);
        read_all();
        return say_end(shadow_, tally_);
    }

  private:
    struct Flight {
        Piece piece;
        std::vector<std::byte> data;
    };
    void fill_up() {
        for (unsigned tries = 0; under_way_ < depth && bytes_ < most_bytes && tries < 64; ++tries)
            if (const Piece piece = shadow_.next(); piece.count > 0) start(piece);
    }
    void start(const Piece& piece) {
        const bool data = piece.what == What::read || piece.what == What::write;
        auto flight = std::make_shared<Flight>(piece, std::vector<std::byte>(data ? piece.count * sector : 0));
        if (piece.what == What::write) Shadow::fill(piece, flight->data);
        const auto done = [this, flight](Status result) { ended(*flight, result); };
        ++under_way_, bytes_ += flight->data.size();
        const std::uint64_t at = piece.first * sector;
        switch (piece.what) {
            case What::read: return disk_.read(at, flight->data, done);
            case What::write: return disk_.write(at, flight->data, done);
            case What::flush: return disk_.flush(done);
            case What::discard: return disk_.discard(at, piece.count * sector, done);
        }
    }
    void ended(const Flight& flight, const Status& result) {
        --under_way_, bytes_ -= flight.data.size();
        tally_.count(flight.piece);
        if (!result) return fail(result);
        shadow_.ended(flight.piece);
        if (flight.piece.what == What::read) shadow_.check(flight.piece, flight.data);
    }
    void fail(const Status& result) {
        ++tally_.errors;
        say("error " + result.error().message());
    }
    void probe() {
        if (std::exchange(probing_, true)) return;
        disk_.read(0, probe_, [this, asked = Clock::now()](Status result) {
            probing_ = false;
            if (!result) return fail(result);
            say(fmt::format("probe {:.6f} {:.6f}", seconds(asked), seconds(Clock::now())));
        });
    }
    void read_all() {
        for (std::uint64_t at = 0; at < shadow_.sectors(); at += step) {
            start(shadow_.take({.first = at, .count = std::min(step, shadow_.sectors() - at)}));
            while (under_way_ > 1) loop_.turn(10ms);
        }
        while (under_way_ > 0) loop_.turn(10ms);
    }

    block::Disk& disk_;
    Loop& loop_;
    Shadow shadow_;
    Tally tally_;
    std::array<std::byte, sector> probe_;
    unsigned under_way_ = 0;
    std::uint64_t bytes_ = 0;
    bool probing_ = false;
};

// ---- Through the file: a request a thread ---------------------------------------------------------------------------

class FileLoad {
  public:
    FileLoad(int fd, bool device, std::uint64_t sectors, const std::string& model, std::uint32_t seed, bool discards)
        : fd_(fd), device_(device), shadow_(model, sectors, seed) {
        shadow_.discards = discards;
    }

    int run() {
        read_all();
        say(fmt::format("ready {}", shadow_.sectors()));
        {
            std::vector<std::jthread> threads;
            for (unsigned i = 0; i < workers; ++i) threads.emplace_back([this] { work(); });
            threads.emplace_back([this] { probe(); });
            while (!asked_to_stop()) {
                std::this_thread::sleep_for(100ms);
                tally_.say_done();
            }
            stop_ = true;
        }
        read_all();
        return say_end(shadow_, tally_);
    }

  private:
    static constexpr unsigned workers = 4;

    void work() {
        Aligned buffer(2048 * sector);
        while (!stop_) {
            Piece piece;
            {
                const std::lock_guard lock(mutex_);
                piece = shadow_.next();
            }
            if (piece.count > 0) carry_out(piece, buffer.bytes.first(piece.count * sector));
        }
    }
    void carry_out(const Piece& piece, std::span<std::byte> data) {
        const auto at = static_cast<off_t>(piece.first * sector), size = static_cast<off_t>(data.size());
        if (piece.what == What::write) Shadow::fill(piece, data);
        ssize_t result = 0;
        switch (piece.what) {
            case What::read: result = ::pread(fd_, data.data(), data.size(), at) - size; break;
            case What::write: result = ::pwrite(fd_, data.data(), data.size(), at) - size; break;
            case What::flush: result = ::fsync(fd_); break;
            case What::discard: result = discard(at, size); break;
        }
        const int error = errno;
        const std::lock_guard lock(mutex_);
        tally_.count(piece);
        if (result != 0) return fail(piece, result, error);
        shadow_.ended(piece);
        if (piece.what == What::read) shadow_.check(piece, data);
    }
    void fail(const Piece& piece, ssize_t result, int error) {
        ++tally_.errors;
        say(fmt::format("error request {} of {} sectors at {}: {} {}", static_cast<int>(piece.what), piece.count,
                        piece.first, result, std::strerror(error)));
    }
    int discard(off_t at, off_t size) const {
        std::array range{static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(size)};
        return device_ ? ::ioctl(fd_, BLKDISCARD, range.data())
                       : ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size);
    }
    void probe() {
        Aligned buffer(4096);
        while (!stop_) {
            const auto asked = Clock::now();
            if (::pread(fd_, buffer.bytes.data(), sector, 0) != static_cast<ssize_t>(sector)) ++tally_.errors;
            say(fmt::format("probe {:.6f} {:.6f}", seconds(asked), seconds(Clock::now())));
            std::this_thread::sleep_until(asked + 1ms);
        }
    }
    void read_all() {
        Aligned buffer(step * sector);
        for (std::uint64_t at = 0; at < shadow_.sectors(); at += step) {
            const Piece piece = shadow_.take({.first = at, .count = std::min(step, shadow_.sectors() - at)});
            carry_out(piece, buffer.bytes.first(piece.count * sector));
        }
    }

    int fd_;
    bool device_;       // of the kernel, rather than a file
    std::mutex mutex_;  // of the shadow
    Shadow shadow_;
    Tally tally_;
    std::atomic<bool> stop_ = false;
};

int use_file(const std::string& path, const std::string& model, std::uint32_t seed, bool discards) {
    const int fd = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    struct stat seen{};
    const off_t size = fd < 0 || ::fstat(fd, &seen) != 0 ? -1 : ::lseek(fd, 0, SEEK_END);
    if (size < 0) return fmt::print(stderr, "{}: {}\n", path, std::strerror(errno)), 1;
    return FileLoad(fd, S_ISBLK(seen.st_mode), static_cast<std::uint64_t>(size) / sector, model, seed, discards).run();
}

int use_library(const std::string& name, const std::string& model, std::uint32_t seed) {
    auto opened = block::open_disk(name, {.queues = 2});
    if (!opened) return fmt::print(stderr, "{}: {}\n", name, opened.error().message()), 1;
    return LibraryLoad(*opened, model, seed).run();
}

}  // namespace
}  // namespace caisson::chaos

int main(int argc, char** argv) {
    if (argc != 4 && (argc != 5 || std::string_view(argv[4]) != "no-discard"))
        return fmt::print(stderr, "usage: block_load DISK MODEL SEED [no-discard]\n"), 2;
    const std::string disk = argv[1], model = argv[2];
    const auto seed = static_cast<std::uint32_t>(std::strtoul(argv[3], nullptr, 10));
    try {
        return disk.starts_with("/") ? caisson::chaos::use_file(disk, model, seed, argc < 5)
                                     : caisson::chaos::use_library(disk, model, seed);
    } catch (const std::exception& error) {
        return fmt::print(stderr, "block_load: {}\n", error.what()), 1;
    }
}
