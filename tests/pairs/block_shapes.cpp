// A disk of every shape: it grows while it is used, has large sectors, is counted in blocks, comes back with less than
// before; and the ways in which a program may use it that its README promises.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "frontends/block/attachment_fuse.h"
#include "tests/support/block_pair.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;
using block::Disk;
using block::Operation;

namespace {

int run(BlockWorld& world, Disk& disk, const Disk::Request& request) {
    std::optional<int> result;
    if (const int refused = disk.submit(request)) return refused;
    const bool ended = world.until([&] {
        disk.poll([&](std::uint64_t, int error) { result = error; });
        return result.has_value();
    });
    return ended ? *result : -1;
}

void write_and_read_back(BlockWorld& world, Disk& disk, std::uint64_t offset, std::size_t size) {
    auto bytes = test_bytes(size, static_cast<std::uint32_t>(offset + size));
    std::vector<std::byte> back(size);
    REQUIRE(run(world, disk, {.operation = Operation::write, .offset = offset, .length = size, .data = bytes}) == 0);
    REQUIRE(run(world, disk, {.operation = Operation::read, .offset = offset, .length = size, .data = back}) == 0);
    REQUIRE(back == bytes);
}

// As `caisson block-resize` does.
void say_resized(BlockWorld& world, const std::string& word) {
    need(world.dom0().write(world.back_path() + "/caisson-resize", word));
}

}  // namespace

TEST_CASE("A disk that grows and shrinks while it is used has its new size at once, and nobody reconnects") {
    const TemporaryFile file(1 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk();
    unsigned changes = 0;
    disk->on_change([&] { ++changes; });
    REQUIRE(disk->geometry().bytes() == 1 << 20);
    std::vector<std::byte> bytes(4096);
    REQUIRE(disk->submit({.operation = Operation::read, .offset = 1 << 20, .length = 4096, .data = bytes}) == EIO);

    file.resize(4 << 20);
    say_resized(world, "1");
    REQUIRE(world.until([&] { return disk->geometry().bytes() == 4 << 20; }));
    REQUIRE(world.until([&] { return changes > 0; }));
    write_and_read_back(world, *disk, (4 << 20) - 8192, 8192);
    REQUIRE(file.read((4 << 20) - 8192, 8192) == test_bytes(8192, 4 << 20));

    file.resize(2 << 20);
    say_resized(world, "2");
    REQUIRE(world.until([&] { return disk->geometry().bytes() == 2 << 20; }));
    REQUIRE(disk->submit({.operation = Operation::read, .offset = 2 << 20, .length = 4096, .data = bytes}) == EIO);
    write_and_read_back(world, *disk, 0, 8192);
    REQUIRE(disk->reconnects() == 0);
}

TEST_CASE("The file of a disk that grows has its new size") {
    if (::access("/dev/fuse", R_OK | W_OK) != 0 || ::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        WARN("skipped: no /dev/fuse here, or no right to mount");
        return;
    }
    const TemporaryFile file(1 << 20);
    const std::string path = file.path() + "-xvda";
    BlockWorld world({.nodes = {{"params", file.path()}},
                      .processes = true,
                      .frontend = {.attachment = [&](ControlContext&) { return block::frontend::open_fuse(path); }}});
    world.frontend_worker();
    const auto program_sees = [&](off_t size) {
        const pid_t child = ::fork();
        if (child == 0) {
            ::close_range(3, ~0u, 0);
            struct stat seen{};
            while (::stat(path.c_str(), &seen) != 0 || seen.st_size != size) ::usleep(1000);
            ::_exit(0);
        }
        const bool ended = world.until([&] { return ::waitpid(child, nullptr, WNOHANG) == child; });
        if (!ended) ::kill(child, SIGKILL);
        return ended;
    };
    REQUIRE(program_sees(1 << 20));
    file.resize(4 << 20);
    say_resized(world, "1");
    need(world.dom0().write(world.back_path() + "/sectors", "8192"));  // as the worker has its controller say
    REQUIRE(program_sees(4 << 20));
}

TEST_CASE("Sectors of 4096 bytes: what does not lie on them is refused, everything else works, counted either way") {
    const TemporaryFile file(4 << 20);
    const bool blocks = GENERATE(false, true);
    BlockWorld world({.nodes = {{"params", file.path()},
                                {"caisson-sector-size", "4096"},
                                {"caisson-sectors-are-blocks", blocks ? "1" : "0"}}});
    if (blocks) need(world.dom0().write(world.front_path() + "/caisson-sectors-are-blocks", "1"));
    const auto disk = world.disk();
    REQUIRE(need(world.dom0().read(world.back_path() + "/sectors")).value_or("") == (blocks ? "1024" : "8192"));
    REQUIRE(disk->geometry().sector_size == 4096);
    REQUIRE(disk->geometry().bytes() == 4 << 20);
    std::vector<std::byte> bytes(512);
    REQUIRE(disk->submit({.operation = Operation::read, .offset = 0, .length = 512, .data = bytes}) == EINVAL);
    for (const std::uint64_t offset : {0ull, 4096ull, 40960ull, (4ull << 20) - (256 << 10)})
        for (const std::size_t size : {std::size_t{4096}, std::size_t{65536}, std::size_t{256 << 10}}) {
            write_and_read_back(world, *disk, offset, size);
            REQUIRE(file.read(offset, size) == test_bytes(size, static_cast<std::uint32_t>(offset + size)));
        }
    REQUIRE(run(world, *disk, {.operation = Operation::discard, .offset = 40960, .length = 8192}) == 0);
    REQUIRE(file.read(40960, 8192) == std::vector<std::byte>(8192));

    file.resize(8 << 20);
    say_resized(world, "1");
    REQUIRE(world.until([&] { return disk->geometry().bytes() == 8 << 20; }));
    write_and_read_back(world, *disk, (8 << 20) - 4096, 4096);
    REQUIRE(file.read((8 << 20) - 4096, 4096) == test_bytes(4096, 8 << 20));
    REQUIRE(!world.backend().complaint);
}

TEST_CASE("A barrier writes what it brings, and one without data only orders") {
    const TemporaryFile file(1 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk();
    REQUIRE(disk->geometry().barrier);
    auto bytes = test_bytes(11 * page_size, 9);
    REQUIRE(run(world, *disk,
                {.operation = Operation::barrier, .offset = 4096, .length = bytes.size(), .data = bytes}) == 0);
    REQUIRE(file.read(4096, bytes.size()) == bytes);
    REQUIRE(run(world, *disk, {.operation = Operation::barrier}) == 0);
    bytes.resize(12 * page_size);
    REQUIRE(disk->submit({.operation = Operation::barrier, .offset = 0, .length = bytes.size(), .data = bytes}) ==
            EINVAL);
}

TEST_CASE(
    "A backend that comes back with fewer queues, a smaller ring and no indirect segments gets everything again") {
    const TemporaryFile file(4 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk({.queues = 4, .ring_order = 2});
    REQUIRE(disk->queues() == 4);
    std::vector<std::vector<std::byte>> data;
    unsigned answered = 0, errors = 0;
    for (std::uint32_t i = 0; i < 64; ++i) data.push_back(test_bytes(64 << 10, i));
    const auto drain = [&] { disk->poll([&](std::uint64_t, int error) { ++answered, errors += error != 0; }); };
    unsigned asked = 0;
    for (; asked < 16; ++asked)  // nobody steps the backend: all of it is in flight when it goes
        REQUIRE(disk->submit({.operation = Operation::write,
                              .offset = std::uint64_t{asked} * (64 << 10),
                              .length = 64 << 10,
                              .data = data[asked],
                              .cookie = asked}) == 0);
    world.restart_backend();
    for (const auto& [key, value] : BlockNodes{{"multi-queue-max-queues", "1"},
                                               {"max-ring-page-order", "0"},
                                               {"feature-max-indirect-segments", "0"},
                                               {"feature-persistent", "0"}})
        need(world.dom0().write(world.back_path() + "/" + key, value));
    REQUIRE(world.until([&] { return drain(), disk->reconnects() == 1; }));
    REQUIRE(disk->queues() == 1);
    REQUIRE(world.until([&] {
        while (asked < 64 && disk->submit({.operation = Operation::write,
                                           .offset = std::uint64_t{asked} * (64 << 10),
                                           .length = 64 << 10,
                                           .data = data[asked],
                                           .cookie = asked}) == 0)
            ++asked;
        return drain(), answered == 64;
    }));
    REQUIRE(errors == 0);
    for (std::uint32_t i = 0; i < 64; ++i) REQUIRE(file.read(std::uint64_t{i} * (64 << 10), 64 << 10) == data[i]);
}

TEST_CASE("Only a connected backend's silence fails a request, and the disk goes on with the next one") {
    const TemporaryFile file(1 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk({.patience = std::chrono::seconds(0)});
    std::vector<std::byte> bytes(4096);
    std::optional<int> told;
    unsigned times = 0;
    disk->read(0, bytes, [&](Status done) { told = done ? 0 : done.error().err, ++times; });
    // Nobody serves the backend; the loop alone ends it.
    const auto end = Loop::Clock::now() + std::chrono::seconds(60);
    while (!told && Loop::Clock::now() < end) (void)world.loop().turn(std::chrono::milliseconds(50));
    REQUIRE(told == ETIMEDOUT);
    world.restart_backend();
    REQUIRE(world.until([&] { return disk->reconnects() == 1; }));
    bool flushed = false;
    disk->flush([&](Status) { flushed = true; });
    REQUIRE(world.until([&] { return flushed; }));
    REQUIRE(times == 1);
}

TEST_CASE("Without /dev/fuse the log says so, and the disk is there for programs that open it themselves") {
    BlockWorld world(
        {.frontend = {.attachment = [](ControlContext&) -> Result<std::unique_ptr<block::frontend::Attachment>> {
             return host_fault(ENOENT, "open", "/dev/fuse");
         }}});
    BlockSide& front = world.frontend_worker();
    REQUIRE(world.until([&] { return need(world.dom0().read(world.front_path() + "/state")) == "4"; }));
    REQUIRE(!front.complaint);
    front.stop();
    REQUIRE(world.until([&] { return need(world.dom0().read(world.front_path() + "/state")) == "6"; }));
    const auto disk = world.disk();
    write_and_read_back(world, *disk, 4096, 4096);
}

TEST_CASE("The README's program: coroutines on a disk") {
    BlockWorld world;
    const auto opened = world.disk();
    struct Task {
        struct promise_type {
            Task get_return_object() { return {}; }
            std::suspend_never initial_suspend() { return {}; }
            std::suspend_never final_suspend() noexcept { return {}; }
            void return_void() {}
            void unhandled_exception() { std::terminate(); }
        };
    };
    const auto bytes = test_bytes(4096, 1);
    bool finished = false;
    const auto program = [&]() -> Task {
        auto& disk = *opened;
        const caisson::Status written = co_await disk.write(0, bytes);
        const caisson::Status durable = co_await disk.flush();
        finished = written && durable;
    };
    program();
    REQUIRE(world.until([&] { return finished; }));
}
