// What a disk's target may be, and what a worker gets of it; files through the real kernel.
#include <catch2/catch.hpp>

#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backends/block/target.h"
#include "tests/support/block_kernel.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::block;
using namespace caisson::block::backend;
using namespace std::chrono_literals;

namespace {

// Below /var/tmp: a real disk's file system, mostly.
struct Folder : test::TemporaryFolder {
    Folder() : TemporaryFolder("/var/tmp") {}
};

Result<Target> opened(const std::string& params, TargetWishes wishes = {}) {
    auto name = parse_target(params);
    if (!name) return std::unexpected(name.error());
    return open_target(*name, wishes);
}

std::string complaint(const std::string& params, TargetWishes wishes = {}) {
    const auto target = opened(params, wishes);
    return target ? "no complaint" : target.error().message();
}

Fd worker_descriptor(const Handover& handover) {
    auto copies = handover.copies();
    REQUIRE(copies);
    REQUIRE(copies->size() == 1);
    return std::move(copies->front());
}

// A block device that cannot keep what is written to it: a loop over memory that may not grow.
class FailingDisk {
  public:
    FailingDisk() {
        const Fd memory(::memfd_create("failing-disk", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        const Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
        if (!memory || !control || ::ftruncate(memory.get(), 16 << 20) != 0) return;
        const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
        const std::string path = "/dev/loop" + std::to_string(number);
        loop_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        if (number < 0 || !loop_ || ::ioctl(loop_.get(), LOOP_SET_FD, memory.get()) != 0) return;
        path_ = path;
        (void)!::ftruncate(memory.get(), 1 << 20);
        (void)!::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_GROW);
    }
    ~FailingDisk() {
        if (!path_.empty()) ::ioctl(loop_.get(), LOOP_CLR_FD, 0);
    }
    FailingDisk(const FailingDisk&) = delete;
    const std::string& path() const { return path_; }  // empty: there are no loop devices here

  private:
    Fd loop_;
    std::string path_;
};

}  // namespace

TEST_CASE("A disk's target is a path, memory, nothing or an NBD export, and no other word") {
    CHECK(parse_target("/a:b,c")->path == "/a:b,c");
    CHECK(parse_target("raw:/a")->path == "/a");
    CHECK(parse_target("aio:/a")->kind == HostKind::file);
    CHECK(parse_target("memory:64M")->bytes == 64 << 20);
    CHECK(parse_target("null:1T")->bytes == std::uint64_t{1} << 40);
    const auto socket = parse_target("nbd:unix:/run/x:disk one");
    CHECK((socket->path == "/run/x" && socket->nbd_export == "disk one"));
    CHECK(parse_target("nbd:unix:/run/x:exportname=a")->nbd_export == "a");
    const auto tcp = parse_target("nbd://[::1]:7/a/b");
    CHECK((tcp->host == "::1" && tcp->port == "7" && tcp->nbd_export == "a/b"));
    CHECK((parse_target("nbd://h")->port == "10809" && parse_target("nbd://[fe80::1]")->host == "fe80::1"));
    for (const char* wrong :
         {"", "a", "qcow2:/a", "vhd:/a", "phy:a", "memory:", "memory:-1", "memory:64X", "memory:16777216T",
          "nbd:", "nbd:h:1", "nbd:unix:x", "nbd://", "nbd://h:0", "nbd://h:99999", "../a", "fd:3"})
        CHECK_FALSE(parse_target(wrong));
}

TEST_CASE("A read-only disk's worker gets a descriptor that cannot write") {
    const Folder folder;
    const std::string path = folder.file("disk", 1 << 20);
    for (const bool cdrom : {false, true}) {
        const auto target = opened(path, {.read_only = !cdrom, .cdrom = cdrom});
        REQUIRE(target);
        CHECK(target->geometry.read_only());
        CHECK_FALSE(target->geometry.discard);
        Handover handover;
        REQUIRE(target->hand_over(handover));
        const Fd fd = worker_descriptor(handover);
        CHECK((::fcntl(fd.get(), F_GETFL) & O_ACCMODE) == O_RDONLY);
        CHECK(::pwrite(fd.get(), "x", 1, 0) < 0);
    }
}

TEST_CASE("Each worker gets an open file of its own, of the file that was opened first") {
    const Folder folder;
    const std::string path = folder.file("disk", 1 << 20);
    const auto target = opened(path);
    REQUIRE(target);
    Handover handover;
    REQUIRE(target->hand_over(handover));
    std::filesystem::rename(path, path + ".old");
    folder.file("disk", 4096);
    Fd first = worker_descriptor(handover);
    const Fd second = worker_descriptor(handover);
    struct stat one{}, two{};
    REQUIRE((::fstat(first.get(), &one) == 0 && ::fstat(second.get(), &two) == 0));
    CHECK(one.st_ino == two.st_ino);
    CHECK(one.st_size == 1 << 20);
    // Separate: the second's lock waits for the first's, and gets it when the last copy of the first is gone.
    auto kernel_loop = Loop::make();
    REQUIRE(kernel_loop);
    struct : KernelAnswers {
        void answered(std::uint32_t, int) override {}
    } nobody;
    const auto kernel = make_ring_kernel(**kernel_loop, nobody);
    Fd copy = *first.duplicate();
    CHECK(kernel->try_lock(first.get(), false) == 0);
    first.reset();
    CHECK(kernel->try_lock(second.get(), false) == EWOULDBLOCK);
    copy.reset();
    CHECK(kernel->try_lock(second.get(), false) == 0);
}

TEST_CASE("A write that failed on its way to the disk is told to a successor, though its predecessor was told, too") {
    const FailingDisk disk;
    if (disk.path().empty()) {
        WARN("skipped: no loop device");
        return;
    }
    const auto target = opened(disk.path(), {.direct_io = false});
    REQUIRE(target);
    Handover handover;
    REQUIRE(target->hand_over(handover));
    const Fd first = worker_descriptor(handover);
    const std::vector<char> data(1 << 20, 'x');
    REQUIRE(::pwrite(first.get(), data.data(), data.size(), 8 << 20) == 1 << 20);
    REQUIRE(::fdatasync(first.get()) != 0);  // the kernel has said it; the worker dies before it can
    const Fd second = worker_descriptor(handover);
    CHECK(::fdatasync(second.get()) != 0);
    CHECK(::fdatasync(second.get()) == 0);
}

TEST_CASE("Two disks do not write one file, unless both are asked to share it") {
    const Folder folder;
    const std::string path = folder.file("disk", 1 << 20);
    const auto one = opened(path), other = opened(path), shared = opened(path, {.shared = true}),
               reader = opened(path, {.read_only = true});
    Handover handover, refused;
    REQUIRE(one->hand_over(handover));
    auto loop = Loop::make();
    struct : KernelAnswers {
        void answered(std::uint32_t, int) override {}
    } nobody;
    const auto kernel = make_ring_kernel(**loop, nobody);
    Fd worker = worker_descriptor(handover);
    REQUIRE(kernel->try_lock(worker.get(), false) == 0);
    const auto error = other->hand_over(refused);
    REQUIRE_FALSE(error);
    CHECK_THAT(error.error().message(), Catch::Contains("is used by another disk or program"));
    CHECK_FALSE(reader->hand_over(refused));
    worker.reset();
    Fd sharer(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(kernel->try_lock(sharer.get(), true) == 0);
    CHECK(shared->hand_over(refused));
    CHECK(reader->hand_over(refused));
    CHECK_FALSE(other->hand_over(refused));
}

TEST_CASE("What is no disk is refused, and opening it does not wait") {
    const Folder folder;
    REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
    CHECK_THAT(complaint(folder / "fifo"), Catch::Contains("neither a regular file nor a block device"));
    CHECK_THAT(complaint("/dev/zero"), Catch::Contains("neither a regular file nor a block device"));
    CHECK_THAT(complaint(folder.path(), {.read_only = true}), Catch::Contains("neither a regular file"));
    CHECK_THAT(complaint(folder / "none"), Catch::Contains("No such file"));
    CHECK_THAT(complaint(folder.file("empty", 511)), Catch::Contains("empty"));
    CHECK_THAT(complaint(folder.file("less", 2048), {.sector_size = 4096}), Catch::Contains("empty"));
}

TEST_CASE("A disk's size is whole sectors of the file, and a file that grew is seen") {
    const Folder folder;
    const std::string path = folder.file("disk", 3 * 4096 + 1000);
    CHECK(opened(path)->geometry.sectors == 25);
    const auto large = opened(path, {.sector_size = 4096});
    CHECK(large->geometry.sectors == 24);
    std::filesystem::resize_file(path, 8 * 4096);
    CHECK(*large->look_again() == 64);
    CHECK(opened("memory:1M")->geometry.sectors == 2048);
}

TEST_CASE("Through the kernel's io_uring, a disk keeps what it was given") {
    const Folder folder;
    const std::string path = folder.file("disk", 1 << 20);
    for (const bool direct : {false, true}) {
        auto target = opened(path, {.direct_io = direct});
        if (!target && direct) {
            WARN("skipped: direct I/O: " << target.error().message());
            continue;
        }
        REQUIRE(target);
        CHECK(target->direct_io == direct);
        Handover handover;
        REQUIRE(target->hand_over(handover));
        auto loop = Loop::make();
        REQUIRE(loop);
        Answers answers;
        Log log("test");
        FileHost host(
            worker_descriptor(handover), {.geometry = target->geometry},
            [&](KernelAnswers& to) { return make_ring_kernel(**loop, to); }, answers, log);
        REQUIRE(host.ready());
        constexpr std::size_t size = 64 << 10;
        auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, 2 * size));
        const std::span written(memory, size), seen(memory + size, size);
        for (std::size_t i = 0; i < size; ++i) written[i] = static_cast<std::byte>(i * 7 + i / 512);
        std::uint32_t tag = 0;
        const auto wait = [&] {
            while (host.pending() > 0) (*loop)->turn(1s);
            return answers.errors[tag];
        };
        const auto ask = [&](Operation operation, std::uint64_t offset, std::span<std::byte> data,
                             std::uint64_t length) {
            host.submit(
                {.tag = Tag(++tag), .operation = operation, .offset = offset, .length = length, .bounced = data});
            return wait();
        };
        CHECK(ask(Operation::write, 4096, written, size) == 0);
        CHECK(ask(Operation::flush, 0, {}, 0) == 0);
        CHECK(ask(Operation::read, 4096, seen, size) == 0);
        CHECK(std::ranges::equal(written, seen));
        const int discarded = ask(Operation::discard, 4096, {}, size / 2);
        CHECK((discarded == 0 || discarded == EOPNOTSUPP));
        if (discarded == 0) {
            CHECK(ask(Operation::read, 4096, seen, size) == 0);
            CHECK(std::ranges::all_of(seen.first(size / 2), [](std::byte b) { return b == std::byte{0}; }));
            CHECK(std::ranges::equal(written.last(size / 2), seen.last(size / 2)));
        }
        // Hundreds at once: more than the ring has places.
        for (int i = 0; i < 1000; ++i)
            host.submit({.tag = Tag(++tag),
                         .operation = Operation::read,
                         .offset = 0,
                         .length = 512,
                         .bounced = seen.first(512)});
        wait();
        CHECK(answers.errors.size() == tag);
        CHECK(std::ranges::all_of(answers.errors,
                                  [](const auto& one) { return one.second == 0 || one.second == EOPNOTSUPP; }));
        std::free(memory);
    }
}

TEST_CASE("A file host that ends with requests in flight hears of none, and the kernel is done with their memory") {
    const Folder folder;
    const std::string path = folder.file("disk", 1 << 20);
    auto loop = Loop::make();
    REQUIRE(loop);
    Answers answers;
    Log log("test");
    {
        std::vector<std::byte> memory(512 * 100);
        FileHost host(
            Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), {},
            [&](KernelAnswers& to) { return make_ring_kernel(**loop, to); }, answers, log);
        REQUIRE(host.ready());
        for (std::uint32_t i = 0; i < 100; ++i)
            host.submit({.tag = Tag(i),
                         .operation = Operation::read,
                         .offset = i * 512,
                         .length = 512,
                         .bounced = std::span(memory).subspan(i * 512, 512)});
    }
    while ((*loop)->turn(0s)) {
    }
    CHECK(answers.errors.empty());
}
