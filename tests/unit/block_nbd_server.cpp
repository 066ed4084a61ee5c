// A disk as the kernel's nbd driver asks for it: each request has its one reply, across workers that die at any point
// of the conversation. The driver and the backend are the test.
#include <catch2/catch.hpp>

#include <random>
#include <set>

#include "tests/support/block_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;
using block::Operation;
namespace op = block::operation;

namespace {

using Alone = BlockFrontendAlone;
using Reply = NbdDriver::Reply;

// A backend that does what it is asked, and the disk behind it.
struct Honest {
    explicit Honest(Alone& of) : front(of), disk(of.options.features.geometry.bytes()) {}

    // Everything that is on the rings, in any order.
    void serve(std::mt19937* order = nullptr) {
        for (unsigned queue = 0; queue < front.options.queues; ++queue)
            for (auto& request : front.taken(queue)) waiting.emplace_back(queue, request);
        if (order != nullptr) std::ranges::shuffle(waiting, *order);
        for (const auto& [queue, request] : waiting) transfer(request), front.answer(request, 0, queue);
        waiting.clear();
    }
    void transfer(const Alone::Request& request) {
        const std::uint8_t operation = request.operation;
        if (operation == op::discard) discards += 1;
        if (operation == op::flush_diskcache) flushes += 1;
        if (operation != op::read && operation != op::write) return;
        std::size_t at = request.sector * 512;
        for (const auto& segment : segments(request)) {
            const SharedSpan page = front.hypervisor.page(segment.gref);
            const std::size_t first = segment.first_sect * 512u, bytes = (segment.last_sect + 1u) * 512 - first;
            const auto part = std::span(disk).subspan(at, bytes);
            REQUIRE(bool(operation == op::write ? page.copy_out(first, part) : page.copy_in(first, part)));
            at += bytes;
        }
    }
    std::vector<block::Segment> segments(const Alone::Request& request) {
        std::vector<block::Segment> all;
        for (unsigned i = 0; i < request.count; ++i) all.push_back(Alone::segment(request, i));
        return all;
    }

    Alone& front;
    std::vector<std::byte> disk;
    std::vector<std::pair<unsigned, Alone::Request>> waiting;
    unsigned flushes = 0, discards = 0;
};

// 11 segments: nothing is indirect, so that the backend here stays small.
Alone::Options options() { return {.nbd = true, .patience = 3, .features = Alone::disk(4096, 11)}; }

std::vector<Reply> replies(Alone& front) {
    std::vector<Reply> all;
    while (auto one = front.driver->reply()) all.push_back(std::move(*one));
    return all;
}
std::vector<std::byte> filled(std::size_t size, unsigned with) { return std::vector<std::byte>(size, std::byte(with)); }

// Sends, serves, and returns what came back.
template <class... Arguments>
Reply round(Alone& front, Honest& backend, Arguments... arguments) {
    front.driver->ask(arguments...);
    for (int turn = 0; turn < 100; ++turn) {
        front.driver->flush_out();
        front.poll();
        backend.serve();
        front.poll();
        if (auto all = replies(front); !all.empty()) {
            CHECK(all.size() == 1);
            return all[0];
        }
    }
    FAIL("no reply");
    return {};
}

}  // namespace

TEST_CASE("The kernel's nbd driver reads, writes, flushes and trims, each request with its own reply") {
    Alone front(options());
    front.open();
    Honest backend(front);
    const auto data = filled(8192, 0x77);
    CHECK(
        round(front, backend, NbdCommand::write, 1ull << 32, 4096ull, 8192u, std::span<const std::byte>(data)).error ==
        0);
    CHECK(backend.disk[4096] == std::byte{0x77});
    CHECK(backend.disk[4096 + 8191] == std::byte{0x77});
    CHECK(backend.disk[4095] == std::byte{0});
    const Reply seen = round(front, backend, NbdCommand::read, 2ull << 32 | 5, 4096ull, 8192u);
    CHECK(seen.handle == (2ull << 32 | 5));
    CHECK(seen.data == data);
    CHECK(round(front, backend, NbdCommand::flush, 3ull).error == 0);
    CHECK(backend.flushes == 1);
    CHECK(round(front, backend, NbdCommand::trim, 4ull, 0ull, 1u << 20).error == 0);
    CHECK(backend.discards == 1);
    CHECK(front.requests->count() == 0);
}

TEST_CASE("Requests of the nbd driver are answered in the order in which they end, the largest ones in pieces") {
    Alone front(options());
    front.open();
    Honest backend(front);
    for (std::size_t i = 0; i < backend.disk.size(); ++i) backend.disk[i] = static_cast<std::byte>(i / 512 * 7);
    std::mt19937 order(3);
    std::map<std::uint64_t, std::pair<std::size_t, std::size_t>> asked;
    std::size_t got = 0;
    for (unsigned i = 0; i < 40; ++i) {
        const std::uint64_t offset = order() % 2048 * 512;
        const std::uint32_t length = i == 7 ? 1 << 20 : (1 + order() % 128) * 512;
        asked[i] = {offset, length};
        front.driver->ask(NbdCommand::read, i, offset, length);
    }
    for (int turn = 0; turn < 1000 && got < 40; ++turn) {
        front.poll();
        backend.serve(&order);
        for (const Reply& one : replies(front)) {
            const auto [offset, length] = asked.at(one.handle);
            CHECK(one.error == 0);
            CHECK(std::ranges::equal(one.data, std::span(backend.disk).subspan(offset, length)));
            ++got;
        }
    }
    CHECK(got == 40);
}

TEST_CASE("What the nbd driver must not ask is refused, and the conversation goes on") {
    Alone front(options());
    front.open();
    Honest backend(front);
    const std::uint64_t end = backend.disk.size();
    const std::span<const std::byte> none;
    CHECK(round(front, backend, NbdCommand::read, 1ull, 100ull, 512u).error == EINVAL);
    CHECK(round(front, backend, NbdCommand::read, 2ull, 0ull, 100u).error == EINVAL);
    CHECK(round(front, backend, NbdCommand::read, 3ull, 0ull, 0u).error == EINVAL);
    CHECK(round(front, backend, NbdCommand::read, 4ull, end, 512u).error == EIO);
    CHECK(round(front, backend, NbdCommand::read, 5ull, ~0ull << 9, 512u).error == EIO);
    CHECK(round(front, backend, NbdCommand::read, 6ull, 0ull, ~0u).error == EINVAL);
    CHECK(round(front, backend, NbdCommand::read, 7ull, 0ull, 512u, none, std::uint16_t{1}).error == EINVAL);
    CHECK(round(front, backend, NbdCommand(6), 8ull, 0ull, 512u).error == EINVAL);
    CHECK(round(front, backend, NbdCommand(0xFFFF), 9ull).error == EINVAL);
    const auto data = filled(512, 1), large = filled(3 << 20, 2);
    CHECK(round(front, backend, NbdCommand::write, 10ull, end, 512u, std::span<const std::byte>(data)).error == EIO);
    CHECK(round(front, backend, NbdCommand::write, 11ull, 0ull, 3u << 20, std::span<const std::byte>(large)).error ==
          EINVAL);
    CHECK(round(front, backend, NbdCommand::read, 12ull, 0ull, 512u).data == filled(512, 0));
    auto read_only = front.options.features;
    read_only.geometry.info = block::disk_info::read_only;
    front.know(read_only);
    CHECK(round(front, backend, NbdCommand::write, 13ull, 0ull, 512u, std::span<const std::byte>(data)).error == EPERM);
    CHECK(round(front, backend, NbdCommand::trim, 14ull, 0ull, 512u).error == EPERM);
    CHECK(round(front, backend, NbdCommand::flush, 15ull).error == 0);
    CHECK(!front.broken());
    CHECK(front.requests->count() == 0);
}

TEST_CASE("Sectors of 4096 bytes: the nbd driver's requests lie on them, or are refused") {
    auto wanted = options();
    wanted.features.geometry.sector_size = 4096;
    Alone front(wanted);
    front.open();
    Honest backend(front);
    const auto data = filled(4096, 9);
    CHECK(round(front, backend, NbdCommand::write, 1ull, 8192ull, 4096u, std::span<const std::byte>(data)).error == 0);
    CHECK(round(front, backend, NbdCommand::read, 2ull, 8192ull, 4096u).data == data);
    CHECK(round(front, backend, NbdCommand::read, 3ull, 512ull, 4096u).error == EINVAL);
}

TEST_CASE("A disk that keeps nothing back has no flush to send, and the nbd driver's ends at once") {
    auto wanted = options();
    wanted.features.geometry.flush = wanted.features.geometry.barrier = false;
    Alone front(wanted);
    front.open();
    Honest backend(front);
    CHECK(round(front, backend, NbdCommand::flush, 1ull).error == 0);
    CHECK(backend.flushes == 0);
}

TEST_CASE("A request of the nbd driver that comes byte by byte is whole at its last byte, whoever serves by then") {
    Alone front(options());
    front.open();
    Honest backend(front);
    auto bytes = nbd_request(NbdCommand::write, 42, 512, 1024);
    const auto data = filled(1024, 0x31);
    bytes.insert(bytes.end(), data.begin(), data.end());
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        CHECK(front.requests->count() == 0);
        front.driver->send(std::span(bytes).subspan(i, 1));
        front.poll();
        if (i % 3 == 0) front.open();  // another worker
    }
    backend.serve();
    front.poll();
    const auto all = replies(front);
    REQUIRE(all.size() == 1);
    CHECK(all[0].handle == 42);
    CHECK(backend.disk[512] == std::byte{0x31});
    CHECK(backend.disk[1535] == std::byte{0x31});
}

TEST_CASE("An nbd driver that takes no replies has a full table and is not read further; later each reply comes once") {
    Alone front(options());
    front.open();
    Honest backend(front);
    std::uint64_t asked = 0;
    for (; asked < 3000; ++asked) front.driver->ask(NbdCommand::read, asked, 0, 65536);
    for (int turn = 0; turn < 300; ++turn) {
        front.driver->flush_out();
        front.poll();
        backend.serve();
        if (turn % 50 == 49) front.open();  // held replies are another worker's now, one of them half sent
    }
    front.poll();
    CHECK(front.server->waits_for() == POLLOUT);
    CHECK(front.requests->count() <= block::frontend::most_tags);
    std::set<std::uint64_t> seen;
    for (int turn = 0; turn < 20000 && seen.size() < asked; ++turn) {
        for (const Reply& one : replies(front)) {
            CHECK(one.data.size() == 65536);
            CHECK(seen.insert(one.handle).second);
        }
        front.driver->flush_out();
        front.poll();
        backend.serve();
        if (turn % 7 == 3) front.open();
    }
    CHECK(seen.size() == asked);
    CHECK(front.requests->count() == 0);
    CHECK(front.server->waits_for() == 0);
}

TEST_CASE(
    "A worker that dies between any two steps leaves an nbd conversation that goes on, with nothing lost or twice") {
    Alone front(options());
    front.open();
    Honest backend(front);
    std::mt19937 random(11);
    std::map<std::uint64_t, std::vector<std::byte>> expected;  // of reads; empty: of anything else
    std::vector<std::byte> shadow(backend.disk.size());
    std::uint64_t handle = 0;
    unsigned answered = 0;
    const auto settle = [&] {
        for (const Reply& one : replies(front)) {
            const auto found = expected.find(one.handle);
            REQUIRE(found != expected.end());  // nothing twice
            CHECK(one.error == 0);
            CHECK(one.data == found->second);
            expected.erase(found);
            ++answered;
        }
    };
    for (unsigned step = 0; step < 6000; ++step) {
        switch (random() % 6) {
            case 0:
            case 1: {
                // Of its own place, so that the order in which they are done does not matter.
                const std::uint64_t offset = (++handle % 64) * 32768;
                if (expected.size() > 40) break;
                const bool busy =
                    std::ranges::any_of(expected, [&](const auto& one) { return one.first % 64 == handle % 64; });
                if (busy) break;
                const std::uint32_t length = (1 + random() % 64) * 512;
                if (random() % 2 == 0) {
                    const auto data = filled(length, random() % 256);
                    std::ranges::copy(data, shadow.begin() + static_cast<std::ptrdiff_t>(offset));
                    expected[handle] = {};
                    front.driver->ask(NbdCommand::write, handle, offset, length, data);
                } else {
                    const auto part = std::span(shadow).subspan(offset, length);
                    expected[handle].assign(part.begin(), part.end());
                    front.driver->ask(NbdCommand::read, handle, offset, length);
                }
                break;
            }
            case 2: front.poll(); break;
            case 3: backend.serve(&random); break;
            case 4: settle(); break;
            case 5: random() % 4 == 0 ? front.reconnect() : front.open(); break;
        }
        front.driver->flush_out();
    }
    for (int turn = 0; turn < 100; ++turn) front.poll(), backend.serve(), front.poll(), settle();
    CHECK(expected.empty());
    CHECK(answered > 500);
    CHECK(backend.disk == shadow);
    CHECK(front.requests->count() == 0);
}

TEST_CASE("A silent backend: the nbd driver hears of it once, also when the next worker finds the request") {
    Alone front(options());
    front.open();
    front.driver->ask(NbdCommand::read, 5, 0, 512);
    front.poll();
    const auto silent = front.taken();
    REQUIRE(silent.size() == 1);
    front.tick(4);
    front.poll();
    auto all = replies(front);
    REQUIRE(all.size() == 1);
    CHECK(all[0].error == EIO);
    front.open();
    front.poll();
    front.reconnect();
    front.poll();
    CHECK(replies(front).empty());
    CHECK(front.requests->count() == 0);
}
