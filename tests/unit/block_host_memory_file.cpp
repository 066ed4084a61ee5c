// A disk's file on a file system that lives in memory: known as such, and served without waiting for anybody.
#include <catch2/catch.hpp>

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <random>

#include "backends/block/target.h"
#include "tests/support/block_kernel.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::block;
using namespace caisson::block::backend;

namespace {

constexpr std::size_t sector = 512, disk_bytes = 256 * sector;

Fd memory_file(std::size_t bytes) {
    Fd file(::memfd_create("disk", MFD_CLOEXEC));
    REQUIRE(::ftruncate(file.get(), static_cast<off_t>(bytes)) == 0);
    return file;
}

struct Served {
    Answers answers;
    Log log{"test"};
    FileHost host;
    std::uint32_t last = 0;

    explicit Served(Fd file)
        : host(std::move(file), {.geometry = {.sectors = disk_bytes / sector}}, make_immediate_kernel, answers, log) {
        REQUIRE(host.ready());
    }
    // The answer, which has to be there when submit() returns.
    int ask(Operation operation, std::uint64_t offset, std::span<std::byte> data, std::uint64_t length) {
        host.submit({.tag = Tag(++last), .operation = operation, .offset = offset, .length = length, .bounced = data});
        REQUIRE(answers.errors.contains(last));
        REQUIRE(host.pending() == 0);
        return answers.errors[last];
    }
};

std::uint32_t file_system(const std::string& path) {
    struct statfs fs{};
    return ::statfs(path.c_str(), &fs) == 0 ? static_cast<std::uint32_t>(fs.f_type) : 0;
}

}  // namespace

TEST_CASE("A file in memory is told from one on a disk") {
    for (const char* below : {"/dev/shm", "/var/tmp"}) {
        const std::uint32_t type = file_system(below);
        if (type == 0) {
            WARN("skipped: there is no " << below);
            continue;
        }
        const test::TemporaryFolder folder{std::string(below)};
        const auto target = open_target(*parse_target(folder.file("disk", disk_bytes)), {});
        REQUIRE(target);
        Config config;
        target->describe(config);
        CHECK(config.in_memory == (type == TMPFS_MAGIC || type == RAMFS_MAGIC));
    }
}

TEST_CASE("A disk in memory does at once what it is asked, and as a plain array would") {
    Served disk(memory_file(disk_bytes));
    CHECK(disk.host.immediate());
    std::vector<std::byte> model(disk_bytes), data(disk_bytes);
    std::minstd_rand random(7);
    for (int i = 0; i < 5000; ++i) {
        const std::uint64_t first = random() % (disk_bytes / sector),
                            count = 1 + random() % (disk_bytes / sector - first);
        const std::uint64_t offset = first * sector, length = count * sector;
        const auto part = std::span(data).first(length);
        const auto same = std::span(model).subspan(offset, length);
        switch (random() % 4) {
            case 0:
                for (std::byte& byte : part) byte = static_cast<std::byte>(random());
                REQUIRE(disk.ask(Operation::write, offset, part, length) == 0);
                std::ranges::copy(part, same.begin());
                break;
            case 1: REQUIRE(disk.ask(Operation::flush, 0, {}, 0) == 0); break;
            case 2:
                REQUIRE(disk.ask(Operation::discard, offset, {}, length) == 0);
                std::ranges::fill(same, std::byte{0});
                break;
            default:
                REQUIRE(disk.ask(Operation::read, offset, part, length) == 0);
                REQUIRE(std::ranges::equal(part, same));
        }
    }
    CHECK(disk.answers.twice == 0);
}

TEST_CASE("A disk in memory that is cut short, or may not be written, answers with an error and goes on") {
    Served cut(memory_file(disk_bytes / 2));
    std::vector<std::byte> data(disk_bytes);
    CHECK(cut.ask(Operation::read, 0, data, disk_bytes) == EIO);
    CHECK(cut.ask(Operation::read, 0, data, disk_bytes / 2) == 0);
    const Fd file = memory_file(disk_bytes);
    Served read_only(Fd(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC)));
    CHECK(read_only.ask(Operation::write, 0, data, sector) == EBADF);
    CHECK(read_only.ask(Operation::discard, 0, {}, sector) == EBADF);
    CHECK(read_only.ask(Operation::read, 0, data, sector) == 0);
}
