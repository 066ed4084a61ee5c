// The file host when the kernel fails: each failure reaches the request it belongs to, and no other.
#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

#include "tests/support/block_kernel.h"

using namespace caisson;
using namespace caisson::block;
using namespace caisson::block::backend;

namespace {

constexpr std::size_t request = 4096;

std::vector<std::byte> pattern(std::uint32_t seed, std::size_t size = request) {
    std::vector<std::byte> out(size);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(seed * 37 + i / 512 * 11 + i);
    return out;
}

// Twelve requests of all kinds, each on its own place; tag n is the n-th.
struct Mix {
    HeldDisk disk;
    std::vector<std::vector<std::byte>> data;
    std::vector<Operation> operations;
    Mix() {
        for (std::uint32_t i = 0; i < 12; ++i) {
            data.push_back(pattern(i));
            (void)!::pwrite(disk.file.get(), data[i].data(), request, i * request);
        }
    }
    void submit_all() {
        constexpr Operation kinds[] = {Operation::read, Operation::write, Operation::flush, Operation::discard};
        for (std::uint32_t i = 0; i < 12; ++i) {
            operations.push_back(kinds[i % 4]);
            if (operations[i] == Operation::flush)
                disk.host->submit({.tag = Tag(i), .operation = Operation::flush});
            else if (operations[i] == Operation::discard)
                disk.host->submit(
                    {.tag = Tag(i), .operation = Operation::discard, .offset = i * request, .length = request});
            else
                disk.submit(i, operations[i], i * request, data[i]);
        }
    }
};

}  // namespace

TEST_CASE("A disk's call that fails, whichever it is and however, fails its own request and no other") {
    for (const int error : {EIO, ENOSPC, EOPNOTSUPP})
        for (std::size_t k = 0; k < 12; ++k) {
            Mix mix;
            mix.disk.kernel->fault = [&](std::size_t n, const KernelCall&) {
                return n == k ? Outcome{.result = -error} : Outcome{};
            };
            mix.submit_all();
            mix.disk.kernel->run();
            REQUIRE(mix.disk.answers.errors.size() == 12);
            REQUIRE(mix.disk.answers.twice == 0);
            REQUIRE(mix.disk.host->pending() == 0);
            for (std::uint32_t i = 0; i < 12; ++i) REQUIRE(mix.disk.answers.errors[i] == (i == k ? error : 0));
        }
}

TEST_CASE("From the k-th call on everything fails, and so do exactly the requests from there on") {
    for (std::size_t k = 0; k < 12; ++k) {
        Mix mix;
        mix.disk.kernel->fault = [&](std::size_t n, const KernelCall&) {
            return n >= k ? Outcome{.result = -EIO} : Outcome{};
        };
        mix.submit_all();
        mix.disk.kernel->run();
        for (std::uint32_t i = 0; i < 12; ++i) REQUIRE(mix.disk.answers.errors[i] == (i >= k ? EIO : 0));
    }
}

TEST_CASE("An interrupted call is asked again, and one that is interrupted for ever is an error") {
    for (const int error : {EINTR, EAGAIN}) {
        for (std::size_t k = 0; k < 12; ++k) {
            Mix mix;
            mix.disk.kernel->fault = [&](std::size_t n, const KernelCall&) {
                return n == k ? Outcome{.result = -error} : Outcome{};
            };
            mix.submit_all();
            mix.disk.kernel->run();
            for (std::uint32_t i = 0; i < 12; ++i) REQUIRE(mix.disk.answers.errors[i] == 0);
        }
        Mix mix;
        mix.disk.kernel->fault = [&](std::size_t, const KernelCall& call) {
            return call.kind == KernelCall::write ? Outcome{.result = -error} : Outcome{};
        };
        mix.submit_all();
        mix.disk.kernel->run();
        for (std::uint32_t i = 0; i < 12; ++i)
            REQUIRE(mix.disk.answers.errors[i] == (mix.operations[i] == Operation::write ? error : 0));
    }
}

TEST_CASE("Short reads and writes are continued to the last byte, wherever they stop") {
    for (std::size_t most = 512; most < 3 * request; most += 512) {
        HeldDisk disk;
        disk.kernel->fault = [&](std::size_t, const KernelCall&) { return Outcome{.most = most}; };
        auto written = pattern(7, 3 * request), seen = std::vector<std::byte>(3 * request);
        disk.submit(1, Operation::write, request, written);
        disk.kernel->run();
        disk.submit(2, Operation::read, request, seen);
        disk.kernel->run();
        REQUIRE(disk.answers.errors == std::map<std::uint32_t, int>{{1, 0}, {2, 0}});
        REQUIRE(seen == written);
    }
}

TEST_CASE("A file that became shorter than the disk gives an error, not zeros and not an endless loop") {
    HeldDisk disk;
    REQUIRE(::ftruncate(disk.file.get(), request) == 0);
    std::vector<std::byte> data(2 * request);
    disk.submit(1, Operation::read, 0, data);
    disk.kernel->run();
    CHECK(disk.answers.errors[1] == EIO);
}

TEST_CASE("Answers in any order reach their own requests") {
    Mix mix;
    mix.submit_all();
    std::uint32_t salt = 5;
    while (!mix.disk.kernel->calls.empty())
        mix.disk.kernel->step((salt = salt * 31 + 7) % mix.disk.kernel->calls.size());
    CHECK(mix.disk.answers.errors.size() == 12);
    CHECK(mix.disk.answers.twice == 0);
    CHECK(std::ranges::all_of(mix.disk.answers.errors, [](const auto& one) { return one.second == 0; }));
}

TEST_CASE("A disk whose file is locked by another is not ready until the lock is let go") {
    HeldDisk disk;
    HeldKernel* kernel = nullptr;
    FileHost host(
        *disk.file.duplicate(), {},
        [&](KernelAnswers& to) {
            auto made = std::make_unique<HeldKernel>(to);
            kernel = made.get();
            kernel->locked_by_another = true;
            return made;
        },
        disk.answers, disk.log);
    CHECK_FALSE(host.ready());
    kernel->locked_by_another = false;
    CHECK(host.ready());
}

// A model of a disk with a volatile cache: what was written is only sure to survive a cut once a sync that was asked
// for later has come back.
TEST_CASE("Cut at every write boundary: what was acknowledged before an acknowledged flush is in the file") {
    struct Event {
        KernelCall::Kind kind;
        std::uint64_t offset;
        std::byte version;
    };
    for (std::uint32_t seed = 1; seed <= 20; ++seed) {
        HeldDisk disk;
        std::vector<Event> journal;  // in the order in which they reached the file
        disk.kernel->performed = [&](const KernelCall& call) {
            const std::byte version = call.kind == KernelCall::write
                                          ? *static_cast<const std::byte*>(call.parts.front().iov_base)
                                          : std::byte{0};
            journal.push_back({call.kind, call.offset, version});
        };
        // For each acknowledged flush: where the journal stood then, and what every sector had to be by its submission.
        struct Promise {
            std::size_t acknowledged_at;
            std::map<std::uint64_t, std::byte> sectors;
        };
        std::map<std::uint64_t, std::byte> acknowledged;
        std::map<std::uint32_t, std::map<std::uint64_t, std::byte>> flushes;
        std::map<std::uint32_t, std::pair<std::uint64_t, std::byte>> writes;
        std::vector<Promise> promises;
        disk.answers.heard = [&](Tag tag, int error) {
            REQUIRE(error == 0);
            if (const auto write = writes.find(tag.raw); write != writes.end())
                acknowledged[write->second.first] = write->second.second;
            else
                promises.push_back({journal.size(), flushes[tag.raw]});
        };
        std::uint32_t random = seed;
        const auto next = [&](std::uint32_t below) { return (random = random * 1664525 + 1013904223) % 65536 % below; };
        std::vector<std::vector<std::byte>> memory;
        std::set<std::uint64_t> busy;
        for (std::uint32_t tag = 0; tag < 200; ++tag) {
            const std::uint64_t offset = next(16) * request;
            if (next(4) == 0) {
                flushes[tag] = acknowledged;
                disk.host->submit({.tag = Tag(tag), .operation = Operation::flush});
            } else {
                const auto version = static_cast<std::byte>(tag % 255 + 1);
                memory.emplace_back(request, version);
                writes[tag] = {offset, version};
                disk.submit(tag, Operation::write, offset, memory.back());
                disk.kernel->step(disk.kernel->calls.size() - 1);  // one writer a place: in order
            }
            while (!disk.kernel->calls.empty() && next(3) == 0)
                disk.kernel->step(next(static_cast<std::uint32_t>(disk.kernel->calls.size())));
        }
        disk.kernel->run();
        for (std::size_t cut = 0; cut <= journal.size(); ++cut) {
            // The worst disk: everything after the last finished sync is lost.
            std::size_t durable = 0;
            for (std::size_t i = 0; i < cut; ++i)
                if (journal[i].kind == KernelCall::sync) durable = i;
            std::map<std::uint64_t, std::vector<std::byte>> versions;
            for (std::size_t i = 0; i < durable; ++i)
                if (journal[i].kind == KernelCall::write) versions[journal[i].offset].push_back(journal[i].version);
            for (const Promise& promise : promises)
                if (promise.acknowledged_at <= cut)
                    for (const auto& [offset, version] : promise.sectors)
                        REQUIRE(std::ranges::find(versions[offset], version) != versions[offset].end());
        }
    }
}
