// NBD disks: against nbdkit, and against servers that lie.
#include <catch2/catch.hpp>

#include <endian.h>
#include <sys/socket.h>

#include "backends/block/host_nbd.h"
#include "backends/block/nbd_connections.h"
#include "backends/block/target.h"
#include "tests/support/block_kernel.h"
#include "tests/support/nbdkit.h"

using namespace caisson;
using namespace caisson::block;
using namespace caisson::block::backend;
using caisson::test::Nbdkit;
using namespace std::chrono_literals;

namespace {

struct NbdDisk {
    explicit NbdDisk(Fd socket, Geometry geometry = {.sectors = 2048})
        : loop(std::move(*Loop::make())), host(*loop, std::move(socket), geometry, answers, log) {}
    std::uint32_t ask(Operation operation, std::uint64_t offset, std::span<std::byte> data, std::uint64_t length) {
        host.submit({.tag = Tag(++last), .operation = operation, .offset = offset, .length = length, .bounced = data});
        return last;
    }
    void wait() {
        while (host.pending() > 0) loop->turn(1s);
    }
    int asked(Operation operation, std::uint64_t offset, std::span<std::byte> data, std::uint64_t length) {
        const std::uint32_t tag = ask(operation, offset, data, length);
        wait();
        return answers.errors[tag];
    }
    Answers answers;
    Log log{"test"};
    std::unique_ptr<Loop> loop;
    NbdHost host;
    std::uint32_t last = 0;
};

struct Pair {
    explicit Pair(int type = SOCK_STREAM) {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
        near.reset(ends[0]);
        far.reset(ends[1]);
    }
    Fd near, far;
};

std::vector<std::byte> reply(std::uint32_t magic, std::uint32_t error, std::uint64_t cookie) {
    std::vector<std::byte> out(16);
    magic = htobe32(magic), error = htobe32(error);
    std::memcpy(out.data(), &magic, 4);
    std::memcpy(out.data() + 4, &error, 4);
    std::memcpy(out.data() + 8, &cookie, 8);
    return out;
}

}  // namespace

TEST_CASE("A disk over NBD keeps what it was given, discards, and flushes") {
    Nbdkit server({"memory", "64M"});
    if (server.pid < 0) {
        WARN("skipped: nbdkit is not installed");
        return;
    }
    auto target = open_target(*parse_target("nbd:unix:" + server.socket), {});
    REQUIRE(target);
    CHECK(target->geometry.bytes() == 64 << 20);
    CHECK(target->geometry.flush);
    CHECK(target->geometry.discard);
    CHECK(*target->look_again() == target->geometry.sectors);
    Handover handover;
    REQUIRE(target->hand_over(handover));
    auto copies = handover.copies();
    REQUIRE(copies);
    NbdDisk disk(std::move(copies->front()), target->geometry);
    constexpr std::size_t size = 4096, count = 64;
    std::vector<std::byte> written(size * count), seen(size * count);
    for (std::size_t i = 0; i < written.size(); ++i) written[i] = static_cast<std::byte>(i * 3 + i / size);
    for (std::size_t i = 0; i < count; ++i)  // all at once, and reads mixed in
        disk.ask(Operation::write, i * size, std::span(written).subspan(i * size, size), size);
    disk.wait();
    CHECK(disk.asked(Operation::flush, 0, {}, 0) == 0);
    for (std::size_t i = 0; i < count; ++i) {
        disk.ask(Operation::read, i * size, std::span(seen).subspan(i * size, size), size);
        if (i % 3 == 0) disk.ask(Operation::write, (count + i) * size, std::span(written).first(size), size);
    }
    disk.wait();
    CHECK(seen == written);
    CHECK(disk.asked(Operation::discard, 0, {}, size * 2) == 0);
    CHECK(disk.asked(Operation::read, 0, std::span(seen).first(2 * size), 2 * size) == 0);
    CHECK(std::ranges::all_of(std::span(seen).first(2 * size), [](std::byte b) { return b == std::byte{0}; }));
    CHECK(std::ranges::all_of(disk.answers.errors, [](const auto& one) { return one.second == 0; }));
    CHECK(disk.answers.twice == 0);
    // The next worker's connection.
    REQUIRE(::shutdown(handover.copies()->front().get(), SHUT_WR) == 0);
    auto again = handover.copies();
    REQUIRE(again);
    NbdDisk successor(std::move(again->front()), target->geometry);
    CHECK(successor.asked(Operation::read, 4 * size, std::span(seen).first(size), size) == 0);
    CHECK(std::ranges::equal(std::span(seen).first(size), std::span(written).subspan(4 * size, size)));
    // It dies: errors, and no request hangs.
    server.kill();
    for (int i = 0; i < 32; ++i) successor.ask(Operation::read, 0, std::span(seen).first(size), size);
    successor.wait();
    CHECK(successor.asked(Operation::write, 0, std::span(seen).first(size), size) == EIO);
    auto dead = handover.copies();  // a worker that comes now gets a connection that has ended, and asks for another
    REQUIRE(dead);
    NbdDisk third(std::move(dead->front()), target->geometry);
    CHECK(third.asked(Operation::read, 0, std::span(seen).first(size), size) == EIO);
}

TEST_CASE("What an NBD server says of its export is what the disk is") {
    Nbdkit server({"-r", "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096",
                   "blocksize-preferred=4096", "blocksize-error-policy=error"});
    if (server.pid < 0) {
        WARN("skipped: nbdkit, or its filter blocksize-policy, is not installed");
        return;
    }
    const auto target = open_target(*parse_target("nbd:unix:" + server.socket), {});
    REQUIRE(target);
    CHECK(target->geometry.read_only());
    CHECK(target->geometry.sector_size == 4096);
    CHECK_FALSE(target->geometry.discard);
}

TEST_CASE("Errors of an NBD server reach exactly the request they answer") {
    Nbdkit server({"--filter=error", "memory", "1M", "error-pwrite-rate=100%", "error-pwrite=ENOSPC"});
    if (server.pid < 0) {
        WARN("skipped: nbdkit, or its filter error, is not installed");
        return;
    }
    const auto target = open_target(*parse_target("nbd:unix:" + server.socket), {});
    REQUIRE(target);
    Handover handover;
    REQUIRE(target->hand_over(handover));
    NbdDisk disk(std::move(handover.copies()->front()), target->geometry);
    std::vector<std::byte> memory(4096 * 20);
    for (std::uint32_t i = 0; i < 20; ++i)
        disk.ask(i % 2 == 0 ? Operation::write : Operation::read, i * 4096, std::span(memory).subspan(i * 4096, 4096),
                 4096);
    disk.wait();
    for (std::uint32_t i = 0; i < 20; ++i) CHECK(disk.answers.errors[i + 1] == (i % 2 == 0 ? ENOSPC : 0));
}

TEST_CASE("A target that nobody listens at is an error at once") {
    CHECK_FALSE(open_target(*parse_target("nbd:unix:/nowhere/socket"), {}));
    Pair pair;
    const auto no_server = open_target(*parse_target("nbd://127.0.0.1:1"), {});
    REQUIRE_FALSE(no_server);
    CHECK_THAT(no_server.error().message(), Catch::Contains("127.0.0.1:1"));
}

TEST_CASE("An NBD server that lies breaks its own disk: every request fails once, none hangs") {
    const auto cookie = [](std::uint32_t serial, std::uint32_t token) {
        return htobe64(std::uint64_t{serial} << 32 | token);
    };
    const std::vector<std::vector<std::byte>> lies{
        reply(0x12345678, 0, cookie(1, 0)),                                               // no reply at all
        reply(0x67446698, 0, cookie(1, 9)),                                               // to nothing
        reply(0x67446698, 0, cookie(2, 0)),                                               // to a later request
        reply(0x67446698, 0, cookie(0, 0)), reply(0x67446698, 0, ~std::uint64_t{0}), {},  // nothing, and the end
    };
    for (const auto& lie : lies) {
        Pair pair;
        NbdDisk disk(std::move(pair.near));
        std::vector<std::byte> memory(4096 * 3);
        for (std::uint32_t i = 0; i < 3; ++i)
            disk.ask(Operation::read, i * 4096, std::span(memory).subspan(i * 4096, 4096), 4096);
        disk.loop->turn(0s);
        REQUIRE(::send(pair.far.get(), lie.data(), lie.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(lie.size()));
        if (lie.empty()) pair.far.reset();
        disk.wait();
        REQUIRE(disk.answers.errors.size() == 3);
        for (const auto& [tag, error] : disk.answers.errors) CHECK(error == EIO);
        CHECK(disk.answers.twice == 0);
        CHECK(disk.asked(Operation::flush, 0, {}, 0) == EIO);
    }
}

TEST_CASE("An NBD answer that is given twice is a lie, and an error that the protocol does not know is EIO") {
    Pair pair;
    NbdDisk disk(std::move(pair.near));
    std::vector<std::byte> memory(4096 * 2);
    const std::uint32_t first = disk.ask(Operation::write, 0, std::span(memory).first(4096), 4096);
    const std::uint32_t second = disk.ask(Operation::write, 4096, std::span(memory).last(4096), 4096);
    disk.loop->turn(0s);
    const auto one = reply(0x67446698, 4711, htobe64(std::uint64_t{1} << 32));
    for (int i = 0; i < 2; ++i) REQUIRE(::send(pair.far.get(), one.data(), one.size(), MSG_NOSIGNAL) == 16);
    disk.wait();
    CHECK(disk.answers.errors == std::map<std::uint32_t, int>{{first, EIO}, {second, EIO}});
    CHECK(disk.answers.twice == 0);
}

TEST_CASE("Replies that trickle in byte by byte are put together, and an end amid them lets the memory go") {
    Pair pair;
    std::vector<std::byte> memory(1024);
    {
        NbdDisk disk(std::move(pair.near));
        disk.ask(Operation::read, 0, std::span(memory).first(512), 512);
        disk.ask(Operation::read, 0, std::span(memory).last(512), 512);
        auto stream = reply(0x67446698, 0, htobe64(std::uint64_t{1} << 32));
        stream.insert(stream.end(), 512, std::byte{5});
        const auto next = reply(0x67446698, 0, htobe64(std::uint64_t{1} << 32 | 1));
        stream.insert(stream.end(), next.begin(), next.end());
        stream.insert(stream.end(), 100, std::byte{6});
        for (const std::byte b : stream) {
            REQUIRE(::send(pair.far.get(), &b, 1, MSG_NOSIGNAL) == 1);
            disk.loop->turn(10ms);
        }
        while (disk.answers.errors.empty()) disk.loop->turn(10ms);
        CHECK(disk.answers.errors == std::map<std::uint32_t, int>{{1, 0}});
        CHECK(disk.host.pending() == 1);
    }
    CHECK(std::ranges::all_of(std::span(memory).first(512), [](std::byte b) { return b == std::byte{5}; }));
}

TEST_CASE("What a lost NBD connection leaves unanswered goes out again over the next, oldest first; liars on the way") {
    constexpr std::size_t size = 512;
    Pair connection;
    unsigned asked = 0;
    Answers answers;
    Log log("test");
    const auto loop = std::move(*Loop::make());
    Pair line(SOCK_SEQPACKET);
    NbdHost host(*loop, std::move(connection.near), {.sectors = 2048}, answers, log,
                 {.line = std::move(line.near), .ask = [&](const Fd&) { ++asked; }, .patience = 1h});
    std::vector<std::byte> data(size, std::byte{7});
    for (std::uint32_t i = 1; i <= 8; ++i)
        host.submit(
            {.tag = Tag(i), .operation = Operation::write, .offset = i * size, .length = size, .bounced = data});

    // The server's end: `count` requests, as (offset, cookie).
    const auto requests = [&](const Fd& server, std::size_t count) {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> all;
        std::vector<std::byte> bytes;
        while (bytes.size() < count * (28 + size)) {
            loop->turn(1ms);
            std::array<std::byte, 8192> part;
            const ssize_t got = ::recv(server.get(), part.data(), part.size(), MSG_DONTWAIT);
            if (got > 0) bytes.insert(bytes.end(), part.begin(), part.begin() + got);
        }
        CHECK(bytes.size() == count * (28 + size));
        for (std::size_t i = 0; i < count; ++i) {
            std::uint64_t cookie = 0, offset = 0;
            std::memcpy(&cookie, &bytes[i * (28 + size) + 8], 8);
            std::memcpy(&offset, &bytes[i * (28 + size) + 16], 8);
            all.emplace_back(be64toh(offset) / size, cookie);  // as reply() wants it
        }
        return all;
    };
    const auto say = [](const Fd& server, const std::vector<std::byte>& bytes) {
        REQUIRE(::send(server.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
    };
    const auto first = requests(connection.far, 8);
    say(connection.far, reply(0x67446698, 0, first[2].second));
    while (host.pending() > 7) loop->turn(1ms);
    connection.far.reset();
    while (asked == 0) loop->turn(1ms);

    std::uint64_t old_cookie = first[0].second;
    for (unsigned liar = 0; liar < 3; ++liar) {  // answers to requests of the connection before
        Pair next;
        REQUIRE(send_connection(line.far, next.near));
        next.near.reset();
        const auto again = requests(next.far, 7);
        for (std::size_t i = 0; i < 7; ++i) CHECK(again[i].first == (i < 2 ? i + 1 : i + 2));
        const unsigned before = asked;
        say(next.far, reply(0x67446698, 0, std::exchange(old_cookie, again[0].second)));
        while (asked == before) loop->turn(1ms);
        CHECK(host.pending() == 7);
    }
    Pair last;
    REQUIRE(send_connection(line.far, last.near));
    last.near.reset();
    for (const auto& [offset, cookie] : requests(last.far, 7)) say(last.far, reply(0x67446698, 0, cookie));
    while (host.pending() > 0) loop->turn(1ms);
    CHECK(answers.errors.size() == 8);
    for (const auto& [tag, error] : answers.errors) CHECK(error == 0);
}

TEST_CASE("A worker that ends, or gives its NBD server up, leaves the connection's end to the controller") {
    for (const bool lied_to : {false, true}) {
        constexpr std::size_t size = 512;
        Pair connection;
        const Fd controllers = std::move(*connection.near.duplicate());
        unsigned asked = 0;
        Answers answers;
        Log log("test");
        const auto loop = std::move(*Loop::make());
        Pair line(SOCK_SEQPACKET);
        auto host = std::make_unique<NbdHost>(
            *loop, std::move(connection.near), Geometry{.sectors = 2048}, answers, log,
            NbdReconnect{.line = std::move(line.near), .ask = [&](const Fd&) { ++asked; }, .patience = 1h});
        std::vector<std::byte> data(size, std::byte{7}), seen(28 + size);
        host->submit({.tag = Tag(1), .operation = Operation::write, .offset = 0, .length = size, .bounced = data});
        std::size_t got = 0;
        while (got < seen.size()) {
            loop->turn(1ms);
            const ssize_t now = ::recv(connection.far.get(), &seen[got], seen.size() - got, MSG_DONTWAIT);
            if (now > 0) got += static_cast<std::size_t>(now);
        }
        if (lied_to) {
            const auto lie = reply(0x67446698, 0, 12345);
            REQUIRE(::send(connection.far.get(), lie.data(), lie.size(), MSG_NOSIGNAL) == 16);
            while (asked == 0) loop->turn(1ms);
        }
        host.reset();
        // The server still has the write to do: it must not hear of an end, nor may its answer be refused.
        std::byte byte{};
        CHECK((::recv(connection.far.get(), &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN));
        CHECK(::send(connection.far.get(), &byte, 1, MSG_NOSIGNAL) == 1);
        REQUIRE(::shutdown(controllers.get(), SHUT_WR) == 0);
        CHECK(::recv(connection.far.get(), &byte, 1, 0) == 0);
    }
}
