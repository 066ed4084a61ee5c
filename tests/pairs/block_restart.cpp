// A backend that dies, comes back with less than before, or is another domain: nobody who uses the disk notices.
#include <catch2/catch.hpp>
#include <random>

#include "tests/support/block_pair.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;
using block::Disk;
using block::Operation;

namespace {

constexpr std::uint64_t sector = 512;

// Random writes, reads and flushes, checked sector by sector. Every sector says where it is and which version it holds,
// so a lost write, a torn one and one in the wrong place are told apart. Ranges in flight never overlap.
class ShadowLoad {
  public:
    ShadowLoad(Disk& disk, std::uint64_t sectors, std::uint32_t seed)
        : disk_(disk), version_(sectors), busy_(sectors), random_(seed) {}

    void run(unsigned depth) {
        while (in_flight < depth && submit_one()) {
        }
        disk_.poll([&](std::uint64_t cookie, int error) { ended(cookie, error); });
    }
    void drain_only() {
        disk_.poll([&](std::uint64_t cookie, int error) { ended(cookie, error); });
    }
    // Everything once more, at the end.
    void read_all() {
        for (std::uint64_t at = 0; at < version_.size(); at += 64) all_.push_back(at);
    }
    bool done() const { return in_flight == 0 && all_.empty(); }

    unsigned in_flight = 0, answered = 0, errors = 0, wrong = 0;

  private:
    struct Flight {
        Operation operation = Operation::read;
        std::uint64_t first = 0, count = 0;
        std::uint32_t version = 0;
        std::vector<std::byte> data;
        bool used = false;
    };
    static void stamp(std::span<std::byte> bytes, std::uint64_t number, std::uint32_t version) {
        const auto filler = test_bytes(bytes.size() - 12, static_cast<std::uint32_t>(number * 31 + version));
        std::memcpy(bytes.data(), &number, 8);
        std::memcpy(bytes.data() + 8, &version, 4);
        std::memcpy(bytes.data() + 12, filler.data(), filler.size());
    }
    bool submit_one() {
        Flight flight;
        const auto dice = random_() % 100;
        flight.operation = !all_.empty() ? Operation::read
                           : dice < 60   ? Operation::write
                           : dice < 95   ? Operation::read
                                         : Operation::flush;
        if (flight.operation != Operation::flush) {
            flight.count = all_.empty() ? 1 + random_() % (dice % 10 == 0 ? 300 : 24) : 64;
            flight.first = all_.empty() ? random_() % (version_.size() - flight.count) : all_.back();
            for (std::uint64_t i = flight.first; i < flight.first + flight.count; ++i)
                if (busy_[i]) return false;
            flight.data.resize(flight.count * sector);
        }
        flight.version = ++last_version_;
        if (flight.operation == Operation::write)
            for (std::uint64_t i = 0; i < flight.count; ++i)
                stamp(std::span(flight.data).subspan(i * sector, sector), flight.first + i, flight.version);
        std::size_t slot = 0;
        while (slot < flights_.size() && flights_[slot].used) ++slot;
        if (slot == flights_.size()) flights_.emplace_back();
        flight.used = true;
        flights_[slot] = std::move(flight);
        Flight& kept = flights_[slot];
        if (disk_.submit({.operation = kept.operation,
                          .offset = kept.first * sector,
                          .length = kept.count * sector,
                          .data = kept.data,
                          .cookie = slot}) != 0) {
            kept.used = false;
            return false;
        }
        if (!all_.empty()) all_.pop_back();
        for (std::uint64_t i = kept.first; i < kept.first + kept.count; ++i) busy_[i] = true;
        ++in_flight;
        return true;
    }
    void ended(std::uint64_t cookie, int error) {
        Flight& flight = flights_.at(cookie);
        if (!flight.used) ++wrong;
        errors += error != 0;
        --in_flight, ++answered;
        for (std::uint64_t i = 0; i < flight.count; ++i) {
            busy_[flight.first + i] = false;
            if (flight.operation == Operation::write) version_[flight.first + i] = flight.version;
            if (flight.operation == Operation::read) wrong += !holds(flight, i);
        }
        flight.used = false;
    }
    bool holds(const Flight& flight, std::uint64_t i) const {
        const auto seen = std::span(flight.data).subspan(i * sector, sector);
        std::vector<std::byte> expected(sector);
        if (const std::uint32_t version = version_[flight.first + i]) stamp(expected, flight.first + i, version);
        return std::ranges::equal(seen, expected);
    }

    Disk& disk_;
    std::vector<std::uint32_t> version_;  // 0: never written
    std::vector<bool> busy_;
    std::vector<std::uint64_t> all_;
    std::deque<Flight> flights_;
    std::uint32_t last_version_ = 0;
    std::mt19937 random_;
};

void finish(BlockWorld& world, ShadowLoad& load) {
    REQUIRE(world.until([&] { return load.drain_only(), load.in_flight == 0; }));
    load.read_all();
    REQUIRE(world.until([&] { return load.run(16), load.done(); }));
    REQUIRE(load.errors == 0);
    REQUIRE(load.wrong == 0);
}

}  // namespace

TEST_CASE("A backend worker that is killed under load loses nothing and tears nothing") {
    const TemporaryFile file(4 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}, .processes = true});
    const auto disk = world.disk({.queues = 2, .ring_order = 0});
    ShadowLoad load(*disk, 8192, 1);
    for (unsigned kills = 0; kills < 60; ++kills) {
        const unsigned wanted = load.answered + 40 + kills;
        REQUIRE(world.until([&] { return load.run(24), load.answered >= wanted; }));
        world.backend().kill();
    }
    finish(world, load);
    REQUIRE(disk->reconnects() == 0);
}

TEST_CASE("A backend that starts anew finds everything unanswered issued again") {
    const TemporaryFile file(4 << 20);
    const bool processes = GENERATE(false, true);
    BlockWorld world({.nodes = {{"params", file.path()}}, .processes = processes});
    const auto disk = world.disk({.queues = 4, .ring_order = 1});
    ShadowLoad load(*disk, 8192, 2);
    for (unsigned restarts = 1; restarts <= 8; ++restarts) {
        const unsigned wanted = load.answered + 100;
        REQUIRE(world.until([&] { return load.run(40), load.answered >= wanted; }));
        load.run(40);
        world.restart_backend();
        REQUIRE(world.until([&] { return load.drain_only(), disk->reconnects() == restarts; }));
    }
    finish(world, load);
}

TEST_CASE("A backend whose controller dies, too, finds everything unanswered issued again") {
    const TemporaryFile file(4 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk({.queues = 2, .ring_order = 1});
    ShadowLoad load(*disk, 8192, 4);
    for (unsigned crashes = 1; crashes <= 8; ++crashes) {
        const unsigned wanted = load.answered + 100;
        REQUIRE(world.until([&] { return load.run(40), load.answered >= wanted; }));
        load.run(40);
        world.crash_backend();
        REQUIRE(world.until([&] { return load.drain_only(), load.in_flight == 0; }));
    }
    finish(world, load);
}

TEST_CASE("A controller that finds nothing in flight goes on with the rings, and the frontend does not notice") {
    const TemporaryFile file(4 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk({.queues = 2, .ring_order = 1});
    ShadowLoad load(*disk, 8192, 5);
    for (unsigned crashes = 1; crashes <= 8; ++crashes) {
        const unsigned wanted = load.answered + 50;
        REQUIRE(world.until([&] { return load.run(20), load.answered >= wanted; }));
        REQUIRE(world.until([&] { return load.drain_only(), load.in_flight == 0; }));
        world.crash_backend();
        // never InitWait, which would send the frontend away while we take its rings
        CHECK(need(world.dom0().read(world.back_path() + "/state")) == "4");
    }
    finish(world, load);
    CHECK(disk->reconnects() == 0);
}

TEST_CASE("Another domain takes over as the backend, and unanswered writes go with their data") {
    const TemporaryFile file(4 << 20);
    BlockWorld world({.nodes = {{"params", file.path()}}});
    const auto disk = world.disk({.queues = 2});
    ShadowLoad load(*disk, 8192, 3);
    for (unsigned moves = 1; moves <= 4; ++moves) {
        const unsigned wanted = load.answered + 60;
        REQUIRE(world.until([&] { return load.run(40), load.answered >= wanted; }));
        load.run(40);
        REQUIRE(load.in_flight > 0);
        world.new_backend_domain();
        REQUIRE(world.until([&] { return load.drain_only(), disk->reconnects() == moves; }));
    }
    finish(world, load);
}

TEST_CASE("What comes and goes leaves nothing behind") {
    BlockWorld world;
    const auto disk = world.disk({.queues = 2});
    std::vector<std::byte> bytes(65536);
    const auto once = [&](unsigned restarts) {
        bool ended = false;
        disk->write(0, bytes, [&](Status done) { ended = done.has_value(); });
        REQUIRE(world.until([&] { return ended; }));
        world.restart_backend();
        REQUIRE(world.until([&] { return disk->reconnects() == restarts; }));
    };
    once(1);
    const auto before = world.usage();
    for (unsigned restarts = 2; restarts <= 40; ++restarts) once(restarts);
    for (int i = 0; i < 20; ++i) world.step();
    REQUIRE(world.usage() == before);
}
