// A disk whose data is an NBD server's, between two domains: what is written is read, across workers that die.
#include <catch2/catch.hpp>

#include "tests/support/block_pair.h"
#include "tests/support/nbdkit.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;
using block::Operation;

namespace {

constexpr std::size_t request = 8192, count = 64;

// Every request at once, again and again until all are in; then waits for all of them.
template <class Between>
unsigned transfer(BlockWorld& world, block::Disk& disk, Operation operation, std::vector<std::byte>& bytes,
                  Between&& between) {
    std::size_t asked = 0, ended = 0;
    unsigned errors = 0;
    const bool done = world.until([&] {
        while (asked < count && disk.submit({.operation = operation,
                                             .offset = asked * request,
                                             .length = request,
                                             .data = std::span(bytes).subspan(asked * request, request),
                                             .cookie = asked}) == 0)
            ++asked;
        between(ended);
        disk.poll([&](std::uint64_t, int error) { ++ended, errors += error != 0; });
        return ended == count;
    });
    REQUIRE(done);
    return errors;
}

}  // namespace

TEST_CASE("A disk over NBD loses nothing when its workers are killed in the middle of writing") {
    // One thread: of several, nbdkit 1.32 asserts in one that a connection is still there whose end another one has
    // seen.
    Nbdkit server({"--threads=1", "memory", "1M"});
    if (server.pid < 0) {
        WARN("skipped: nbdkit is not installed");
        return;
    }
    BlockWorld world(
        {.nodes = {{"params", "nbd:unix:" + server.socket}, {"caisson-nbd-patience", "0"}}, .processes = true});
    const auto disk = world.disk({.queues = 1});
    std::vector<std::byte> written, seen(request * count);
    for (unsigned round = 0; round < 4; ++round) {
        written = test_bytes(request * count, round + 1);
        bool killed = false;
        CHECK(transfer(world, *disk, Operation::write, written, [&](std::size_t ended) {
                  if (ended > 4 && !std::exchange(killed, true)) world.backend().kill();
              }) == 0);
        CHECK(transfer(world, *disk, Operation::read, seen, [](std::size_t) {}) == 0);
        CHECK(seen == written);
    }
    // Without the server: errors, and nobody waits for ever.
    server.kill();
    CHECK(transfer(world, *disk, Operation::write, written, [](std::size_t) {}) == count);
}

TEST_CASE("An NBD server that dies under load and comes back: no error, and nothing of what was written is lost") {
    TemporaryFile file(count * request);
    Nbdkit server({"--threads=1", "file", file.path()});
    if (server.pid < 0) {
        WARN("skipped: nbdkit is not installed");
        return;
    }
    BlockWorld world({.nodes = {{"params", "nbd:unix:" + server.socket}}});
    const auto disk = world.disk({.queues = 1});
    std::vector<std::byte> written, seen(request * count);
    for (unsigned round = 0; round < 6; ++round) {
        written = test_bytes(request * count, round + 1);
        // Before anything was answered, and away for some turns; or in the middle, and back at the first question.
        const bool early = round % 2 == 0;
        bool killed = false;
        unsigned away = 0;  // turns
        CHECK(transfer(world, *disk, Operation::write, written, [&](std::size_t ended) {
                  if ((early || ended > 4) && !std::exchange(killed, true)) server.kill(), away = early ? 20 : 1;
                  if (away > 0 && --away == 0) server.start();
              }) == 0);
        REQUIRE((killed || !early));
        REQUIRE(away == 0);
        CHECK(transfer(world, *disk, Operation::read, seen, [](std::size_t) {}) == 0);
        CHECK(seen == written);
        server.kill();  // while nothing is in flight
        server.start();
    }
}

TEST_CASE("An NBD server that stays away ends requests when patience is over, and serves again when it is back") {
    TemporaryFile file(count * request);
    Nbdkit server({"--threads=1", "file", file.path()});
    if (server.pid < 0) {
        WARN("skipped: nbdkit is not installed");
        return;
    }
    BlockWorld world({.nodes = {{"params", "nbd:unix:" + server.socket}, {"caisson-nbd-patience", "0"}}});
    const auto disk = world.disk({.queues = 1});
    auto bytes = test_bytes(request * count, 1);
    server.kill();
    CHECK(transfer(world, *disk, Operation::read, bytes, [](std::size_t) {}) == count);
    server.start();
    // Until the next question for a connection was answered, everything fails.
    while (transfer(world, *disk, Operation::read, bytes, [](std::size_t) {}) != 0) {
    }
    CHECK(bytes == std::vector<std::byte>(request * count));
}
