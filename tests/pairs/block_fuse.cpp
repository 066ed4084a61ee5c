// The disk as a file: programs that read and write it, sectors or not, while workers of both sides are killed.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <random>

#include "frontends/block/attachment_fuse.h"
#include "tests/support/block_pair.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;

namespace {

constexpr std::uint64_t disk_bytes = 4 << 20;

// A place to mount: this thread's own view of the file system.
bool may_mount() {
    if (::access("/dev/fuse", R_OK | W_OK) == 0 && ::unshare(CLONE_NEWNS) == 0 &&
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0)
        return true;
    WARN("skipped: no /dev/fuse here, or no right to mount");
    return false;
}

struct Mounted {
    explicit Mounted(bool processes)
        : world({.nodes = {{"params", disk.path()}},
                 .processes = processes,
                 .frontend = {.queues = 2, .ring_order = 1, .attachment = [this](ControlContext&) {
                                  return block::frontend::open_fuse(path());
                              }}}) {
        world.frontend_worker();
        world.until([&] { return std::filesystem::exists(path()); });
    }
    std::string path() const { return folder / "xvda"; }

    TemporaryFolder folder;
    TemporaryFile disk{disk_bytes};
    BlockWorld world;
};

// What a program in the guest has done, for whoever kills its workers: kills wait for progress.
class Progress {
  public:
    Progress() {
        void* memory = ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::runtime_error("mmap");
        count_ = new (memory) std::atomic<std::uint32_t>(0);
    }
    ~Progress() { ::munmap(count_, page_size); }
    void step() { ++*count_; }
    // True once whenever so many steps were made since the last time.
    bool made(std::uint32_t steps) {
        if (*count_ - seen_ < steps) return false;
        seen_ = *count_;
        return true;
    }

  private:
    std::atomic<std::uint32_t>* count_;
    std::uint32_t seen_ = 0;
};

// A program in the guest; its exit code is what it returns. `meanwhile` is called while it runs.
template <class Program, class Meanwhile>
int run(Mounted& mounted, Program&& program, Meanwhile&& meanwhile) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::close_range(3, ~0u, 0);  // or it holds the other end of what it waits for
        ::_exit(program());
    }
    int status = -1;
    mounted.world.until([&] {
        meanwhile();
        return ::waitpid(child, &status, WNOHANG) == child;
    });
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("There is no file of a disk before its backend is there: nobody can wait for one that never comes") {
    if (!may_mount()) return;
    const TemporaryFolder folder;
    const std::string path = folder / "xvda";
    const auto mounted = [&] {
        std::ifstream mounts("/proc/self/mounts");
        const std::string all{std::istreambuf_iterator<char>(mounts), {}};
        return all.find(path) != std::string::npos;
    };
    auto attachment = block::frontend::open_fuse(path);
    REQUIRE(attachment);
    CHECK_FALSE(std::filesystem::exists(path));
    REQUIRE((*attachment)->connected({}));
    CHECK(mounted());  // to look at it would be to wait for a worker
    attachment->reset();
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("A program finds the disk as a file of its size, and reads what it wrote") {
    if (!may_mount()) return;
    Mounted mounted(true);
    const int result = run(
        mounted,
        [&] {
            const Fd file(::open(mounted.path().c_str(), O_RDWR | O_CLOEXEC));
            struct stat seen{};
            if (!file || ::fstat(file.get(), &seen) != 0) return 1;
            if (seen.st_size != static_cast<off_t>(disk_bytes) || !S_ISREG(seen.st_mode)) return 2;
            for (const std::size_t size : {std::size_t{1}, std::size_t{511}, std::size_t{512}, std::size_t{4096},
                                           std::size_t{100000}, std::size_t{1 << 20}, std::size_t{3 << 20}}) {
                const off_t offset = size % 512 == 0 ? 65536 : 70001;
                const auto bytes = test_bytes(size, static_cast<std::uint32_t>(size));
                std::vector<std::byte> back(size);
                if (::pwrite(file.get(), bytes.data(), size, offset) != static_cast<ssize_t>(size)) return 3;
                if (::pread(file.get(), back.data(), size, offset) != static_cast<ssize_t>(size)) return 4;
                if (back != bytes) return 5;
            }
            if (::fsync(file.get()) != 0) return 6;
            if (::pwrite(file.get(), "x", 1, disk_bytes) >= 0 || errno != ENOSPC) return 7;
            std::byte one{};
            if (::pread(file.get(), &one, 1, disk_bytes) != 0) return 8;
            if (::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 65536) != 0) return 9;
            std::vector<std::byte> hole(65536, std::byte{1});
            if (::pread(file.get(), hole.data(), hole.size(), 65536) != 65536) return 10;
            return hole == std::vector<std::byte>(65536) ? 0 : 11;
        },
        [] {});
    REQUIRE(result == 0);
}

TEST_CASE("Workers of both sides are killed while a program writes its file, and the program does not notice") {
    if (!may_mount()) return;
    Mounted mounted(true);
    unsigned kills = 0;
    Progress progress;
    const int result = run(
        mounted,
        [&] {
            const Fd file(::open(mounted.path().c_str(), O_RDWR | O_CLOEXEC));
            if (!file) return 1;
            std::vector<std::byte> shadow(disk_bytes), back;
            std::mt19937 random(7);
            for (std::uint32_t i = 0; i < 600; ++i) {
                progress.step();
                std::size_t size = 1 + random() % (i % 5 == 0 ? 300000 : 9000);
                std::uint64_t offset = random() % (disk_bytes - size);
                if (i % 2 == 0) size = (size + 511) & ~511ull, offset = offset / 2 & ~511ull;
                if (i % 3 != 0) {
                    const auto bytes = test_bytes(size, i);
                    if (::pwrite(file.get(), bytes.data(), size, static_cast<off_t>(offset)) !=
                        static_cast<ssize_t>(size))
                        return 2;
                    std::ranges::copy(bytes, shadow.begin() + static_cast<std::ptrdiff_t>(offset));
                } else {
                    back.resize(size);
                    if (::pread(file.get(), back.data(), size, static_cast<off_t>(offset)) !=
                        static_cast<ssize_t>(size))
                        return 3;
                    if (!std::ranges::equal(back, std::span(shadow).subspan(offset, size))) return 4;
                }
                if (i % 50 == 0 && ::fsync(file.get()) != 0) return 5;
            }
            back.resize(disk_bytes);
            for (std::size_t at = 0; at < disk_bytes; at += 1 << 20)
                if (::pread(file.get(), back.data() + at, 1 << 20, static_cast<off_t>(at)) != 1 << 20) return 6;
            return back == shadow ? 0 : 7;
        },
        [&] {
            if (!progress.made(4)) return;
            if (++kills % 4 == 0)
                mounted.world.backend().kill();
            else
                mounted.world.frontend().kill();
        });
    REQUIRE(result == 0);
    REQUIRE(kills >= 30);
}

TEST_CASE("A program waits while its disk has no backend, and goes on with the next one") {
    if (!may_mount()) return;
    Mounted mounted(true);
    unsigned restarts = 0;
    Progress progress;
    const int result = run(
        mounted,
        [&] {
            const Fd file(::open(mounted.path().c_str(), O_RDWR | O_CLOEXEC));
            if (!file) return 1;
            std::vector<std::byte> back(65536);
            for (std::uint32_t i = 0; i < 400; ++i) {
                progress.step();
                const auto bytes = test_bytes(65536, i);
                const auto offset = static_cast<off_t>(i % 32 * 65536);
                if (::pwrite(file.get(), bytes.data(), bytes.size(), offset) != 65536) return 2;
                if (::pread(file.get(), back.data(), back.size(), offset) != 65536) return 3;
                if (back != bytes) return 4;
            }
            return 0;
        },
        [&] {
            if (restarts == 6 || !progress.made(40)) return;
            ++restarts;
            mounted.world.restart_backend();
        });
    REQUIRE(result == 0);
    REQUIRE(restarts == 6);
}
