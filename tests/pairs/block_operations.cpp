// Every operation of a disk through both real halves, in every shape that the two can agree on.
#include <catch2/catch.hpp>

#include "tests/support/block_pair.h"

using namespace caisson;
using namespace caisson::test;
using block::Disk;
using block::Operation;

namespace {

// One request through submit() and poll().
int run(BlockWorld& world, Disk& disk, const Disk::Request& request) {
    std::optional<int> result;
    while (true) {
        const int refused = disk.submit(request);
        if (refused == 0) break;
        if (refused != EAGAIN) return refused;
        world.step();
    }
    const bool ended = world.until([&] {
        disk.poll([&](std::uint64_t cookie, int error) {
            if (cookie == request.cookie) result = error;
        });
        return result.has_value();
    });
    return ended ? *result : -1;
}

void write_and_read_back(BlockWorld& world, Disk& disk, std::uint64_t offset, std::size_t size, std::uint32_t seed) {
    auto bytes = test_bytes(size, seed);
    std::vector<std::byte> back(size);
    REQUIRE(run(world, disk, {.operation = Operation::write, .offset = offset, .length = size, .data = bytes}) == 0);
    REQUIRE(run(world, disk, {.operation = Operation::read, .offset = offset, .length = size, .data = back}) == 0);
    REQUIRE(back == bytes);
}

}  // namespace

TEST_CASE("A disk tells what it is") {
    BlockWorld world;
    const auto disk = world.disk();
    REQUIRE(disk->geometry().bytes() == 16u << 20);
    REQUIRE(disk->geometry().sector_size == 512);
    REQUIRE(!disk->geometry().read_only());
}

TEST_CASE("What was written is read back, in every size from a sector to a megabyte") {
    BlockWorld world;
    const auto disk = world.disk();
    std::uint32_t seed = 0;
    for (const std::size_t size : {512, 1024, 3584, 4096, 4608, 8192, 45056, 45568, 65536, 131072, 524288, 1048576})
        for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{512}, (std::uint64_t{16} << 20) - size})
            write_and_read_back(world, *disk, offset, size, ++seed);
}

TEST_CASE("Every number of queues and every ring size works, persistent or not") {
    const unsigned queues = GENERATE(1u, 2u, 8u), order = GENERATE(0u, 4u);
    const bool persistent = GENERATE(true, false);
    BlockWorld world;
    const auto disk = world.disk({.queues = queues, .ring_order = order, .persistent = persistent});
    REQUIRE(disk->queues() == queues);
    for (std::uint32_t i = 0; i < 40; ++i) write_and_read_back(world, *disk, i * 4096, 4096u << (i % 3), i);
    write_and_read_back(world, *disk, 0, 1 << 20, 99);
}

TEST_CASE("Many requests at once end once each, with the right data") {
    BlockWorld world;
    const auto disk = world.disk({.queues = 2, .ring_order = 0});
    constexpr unsigned count = 400;
    std::vector<std::vector<std::byte>> blocks;
    for (unsigned i = 0; i < count; ++i) blocks.push_back(test_bytes(4096, i));
    std::vector<std::vector<std::byte>> back(count, std::vector<std::byte>(4096));
    for (const Operation operation : {Operation::write, Operation::read}) {
        std::vector<unsigned> ended(count);
        unsigned asked = 0, done = 0;
        REQUIRE(world.until([&] {
            while (asked < count && disk->submit({.operation = operation,
                                                  .offset = asked * 4096ull,
                                                  .length = 4096,
                                                  .data = operation == Operation::write ? blocks[asked] : back[asked],
                                                  .cookie = asked}) == 0)
                ++asked;
            done += disk->poll([&](std::uint64_t cookie, int error) {
                REQUIRE(error == 0);
                ++ended[cookie];
            });
            return done == count;
        }));
        REQUIRE(std::ranges::all_of(ended, [](unsigned times) { return times == 1; }));
    }
    REQUIRE(back == blocks);
}

TEST_CASE("Data may lie in many pieces of memory, or in pages of the arena") {
    BlockWorld world;
    const auto disk = world.disk();
    auto bytes = test_bytes(10240, 5);
    std::vector<std::byte> back(10240);
    const iovec from[] = {{bytes.data(), 100}, {bytes.data() + 100, 6000}, {bytes.data() + 6100, 4140}};
    const iovec to[] = {{back.data(), 5000}, {back.data() + 5000, 5240}};
    REQUIRE(run(world, *disk, {.operation = Operation::write, .offset = 4096, .length = 10240, .parts = from}) == 0);
    REQUIRE(run(world, *disk, {.operation = Operation::read, .offset = 4096, .length = 10240, .parts = to}) == 0);
    REQUIRE(back == bytes);

    const auto buffer = need(disk->buffer(10240));
    REQUIRE(run(world, *disk, {.operation = Operation::read, .offset = 4096, .length = 10240, .buffer = buffer}) == 0);
    std::vector<std::byte> seen(10240);
    REQUIRE(disk->memory(buffer).copy_out(0, seen));
    REQUIRE(seen == bytes);
    REQUIRE(disk->memory(buffer).copy_in(0, test_bytes(10240, 6)));
    REQUIRE(run(world, *disk, {.operation = Operation::write, .offset = 0, .length = 10240, .buffer = buffer}) == 0);
    REQUIRE(run(world, *disk, {.operation = Operation::read, .offset = 0, .length = 10240, .data = back}) == 0);
    REQUIRE(back == test_bytes(10240, 6));
}

TEST_CASE("A Buffer that the disk never gave out is refused, and gives nothing back") {
    BlockWorld world;
    const auto disk = world.disk();
    for (const Disk::Buffer forged : {Disk::Buffer{65535, 1}, Disk::Buffer{0, 1u << 20}, Disk::Buffer{1, ~0u}}) {
        CHECK(disk->submit({.operation = Operation::write, .length = 4096, .buffer = forged}) == EINVAL);
        CHECK(disk->memory(forged).empty());
        disk->give_back(forged);
    }
    write_and_read_back(world, *disk, 0, 65536, 1);
}

TEST_CASE("Flush and discard end well, and a discarded range of memory reads as zero") {
    BlockWorld world;
    const auto disk = world.disk();
    write_and_read_back(world, *disk, 65536, 65536, 1);
    REQUIRE(run(world, *disk, {.operation = Operation::flush}) == 0);
    REQUIRE(disk->geometry().discard);
    REQUIRE(run(world, *disk, {.operation = Operation::discard, .offset = 65536, .length = 65536}) == 0);
    std::vector<std::byte> back(65536, std::byte{1});
    REQUIRE(run(world, *disk, {.operation = Operation::read, .offset = 65536, .length = 65536, .data = back}) == 0);
    REQUIRE(back == std::vector<std::byte>(65536));
}

TEST_CASE("What a disk cannot do is said before anything is sent") {
    BlockWorld world;
    const auto disk = world.disk();
    std::vector<std::byte> bytes(4096);
    const std::uint64_t end = disk->geometry().bytes();
    const auto refused = [&](Disk::Request request) {
        request.data = std::span(bytes).first(std::min<std::uint64_t>(request.length, bytes.size()));
        return disk->submit(request);
    };
    REQUIRE(refused({.operation = Operation::read, .offset = 1, .length = 512}) == EINVAL);
    REQUIRE(refused({.operation = Operation::read, .offset = 0, .length = 511}) == EINVAL);
    REQUIRE(refused({.operation = Operation::read, .offset = 0, .length = 0}) == EINVAL);
    REQUIRE(refused({.operation = Operation::read, .offset = end, .length = 512}) == EIO);
    REQUIRE(refused({.operation = Operation::read, .offset = end - 512, .length = 1024}) == EIO);
    REQUIRE(refused({.operation = Operation::write, .offset = 0 - 512ull, .length = 1024}) == EIO);
    REQUIRE(refused({.operation = Operation::write, .offset = 0, .length = 2 << 20}) == EINVAL);
    REQUIRE(world.backend().stats().queue[0].requests.get() == 0);
}

TEST_CASE("A read-only disk is never written to") {
    BlockWorld world({.nodes = {{"params", "memory:1M"}, {"mode", "r"}}});
    const auto disk = world.disk();
    std::vector<std::byte> bytes(512);
    REQUIRE(disk->submit({.operation = Operation::write, .offset = 0, .length = 512, .data = bytes}) == EROFS);
    REQUIRE(disk->submit({.operation = Operation::discard, .offset = 0, .length = 512}) == EROFS);
    REQUIRE(run(world, *disk, {.operation = Operation::read, .offset = 0, .length = 512, .data = bytes}) == 0);
}

TEST_CASE("Functions and coroutines are answered, whatever the length") {
    BlockWorld world;
    const auto disk = world.disk();
    const auto bytes = test_bytes(5 << 20, 3);
    std::vector<std::byte> back(5 << 20);
    unsigned ended = 0;
    bool inside = true;
    disk->write(0, bytes, [&](Status done) {
        REQUIRE(done);
        REQUIRE(!inside);
        ++ended;
        disk->flush([&](Status flushed) {
            REQUIRE(flushed);
            ++ended;
        });
    });
    inside = false;
    REQUIRE(world.until([&] { return ended == 2; }));

    struct Task {
        struct promise_type {
            Task get_return_object() { return {}; }
            std::suspend_never initial_suspend() { return {}; }
            std::suspend_never final_suspend() noexcept { return {}; }
            void return_void() {}
            void unhandled_exception() { std::terminate(); }
        };
    };
    bool finished = false;
    const auto program = [&]() -> Task {
        const Status read = co_await disk->read(0, back);
        REQUIRE(read);
        const Status wrong = co_await disk->read(1, std::span(back).first(512));
        REQUIRE(!wrong);
        REQUIRE(wrong.error().err == EINVAL);
        finished = true;
    };
    program();
    REQUIRE(world.until([&] { return finished; }));
    REQUIRE(back == bytes);
}

TEST_CASE("Names of disks are numbers of devices") {
    using block::device_named;
    REQUIRE(device_named("xvda") == DeviceId(51712));
    REQUIRE(device_named("xvdb1") == DeviceId(51729));
    REQUIRE(device_named("xvdaa") == DeviceId(1u << 28 | 26 << 8));
    REQUIRE(device_named("d0") == DeviceId(51712));
    REQUIRE(device_named("d20p3") == DeviceId(1u << 28 | 20 << 8 | 3));
    REQUIRE(device_named("hdc") == DeviceId(22 << 8));
    REQUIRE(device_named("sda1") == DeviceId(8 << 8 | 1));
    REQUIRE(device_named("51712") == DeviceId(51712));
    for (const char* wrong : {"", "xvd", "xvda-1", "xvda9999999999", "xvdaaaaaaa", "da", "d", "d1p", "loop0"})
        REQUIRE(!device_named(wrong));
}
