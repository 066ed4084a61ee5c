// Hostile processes at the sockets of xenstored: the store behind them serves the others as before.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/xenstore_host.h"
#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

namespace {

Fd dial(const std::string& path) {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return fd;
}

std::string request(StoreOp op, std::string_view payload) {
    return bytes_of({static_cast<std::uint32_t>(op), 1, 0, static_cast<std::uint32_t>(payload.size())}, payload);
}

// Sends all and waits for one reply; "" when the other side hung up.
std::string ask(const Fd& fd, StoreOp op, std::string_view payload) {
    const std::string bytes = request(op, payload);
    if (::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) return "";
    StoreHeader header;
    if (::recv(fd.get(), &header, sizeof header, MSG_WAITALL) != sizeof header) return "";
    std::string body(header.length, '\0');
    if (header.length > 0 && ::recv(fd.get(), body.data(), body.size(), MSG_WAITALL) <= 0) return "";
    return body;
}

// Writes until the socket takes no more for a while: the store has stopped reading. Returns the bytes taken.
std::size_t pour(const Fd& fd, const std::string& bytes) {
    std::size_t total = 0;
    while (total < (64U << 20)) {
        const ssize_t sent = ::send(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            total += static_cast<std::size_t>(sent);
            continue;
        }
        pollfd ready{fd.get(), POLLOUT, 0};
        if (::poll(&ready, 1, 300) == 0) break;
        if (ready.revents & (POLLERR | POLLHUP)) break;
    }
    return total;
}

void prepare(Xenstored& store) {
    for (const std::uint16_t domain : {5, 6}) {
        (void)store.write(domain_path(DomainId(domain)), "");
    }
}

}  // namespace

TEST_CASE(
    "xsa_326 a process that sends without end and reads nothing is stopped by its socket, and others are served") {
    StoreHost host({5, 6}, prepare);
    const Fd hostile = dial(host.path(5)), sibling = dial(host.path(5)), good = dial(host.path(6));
    const std::size_t taken = pour(hostile, request(StoreOp::get_domain_path, strings("5")));
    CHECK(taken < (4U << 20));  // what the kernel and 20 replies hold
    CHECK(ask(good, StoreOp::get_domain_path, strings("6")) == strings("/local/domain/6"));

    // Its domain's other processes wait with it, until it is gone.
    const std::string bytes = request(StoreOp::get_domain_path, strings("5"));
    REQUIRE(::send(sibling.get(), bytes.data(), bytes.size(), 0) > 0);
    pollfd waiting{sibling.get(), POLLIN, 0};
    CHECK(::poll(&waiting, 1, 100) == 0);
    ::shutdown(hostile.get(), SHUT_RDWR);
    CHECK(::poll(&waiting, 1, 10000) == 1);
    StoreHeader header;
    CHECK(::recv(sibling.get(), &header, sizeof header, MSG_WAITALL) == sizeof header);
    CHECK(header.type == static_cast<std::uint32_t>(StoreOp::get_domain_path));
}

TEST_CASE("xsa_420 a process that sends nonsense loses its connection and can come back") {
    StoreHost host({5}, prepare);
    for (const std::uint32_t length : {4097U, 0x40000000U, 0xffffffffU}) {
        const Fd bad = dial(host.path(5));
        const std::string nonsense = bytes_of({2, 1, 0, length}, "x");
        REQUIRE(::send(bad.get(), nonsense.data(), nonsense.size(), 0) > 0);
        char byte;
        CHECK(::recv(bad.get(), &byte, 1, 0) <= 0);  // hung up
        const Fd again = dial(host.path(5));
        CHECK(ask(again, StoreOp::get_domain_path, strings("5")) == strings("/local/domain/5"));
    }
}

TEST_CASE("A process with too many connections is refused more, and gets them back when it closes some") {
    StoreHost host({5, 6}, prepare);
    std::vector<Fd> held;
    for (int i = 0; i < 64; ++i) {
        held.push_back(dial(host.path(5)));
        REQUIRE(ask(held.back(), StoreOp::get_domain_path, strings("5")) != "");
    }
    const Fd beyond = dial(host.path(5));
    CHECK(ask(beyond, StoreOp::get_domain_path, strings("5")) == "");
    const Fd good = dial(host.path(6));
    CHECK(ask(good, StoreOp::get_domain_path, strings("6")) != "");
    for (int round = 0; round < 200; ++round) {
        held.pop_back();
        std::string answer;
        for (int tries = 0; answer.empty() && tries < 1000; ++tries) {  // until the store has noticed
            held.push_back(dial(host.path(5)));
            answer = ask(held.back(), StoreOp::get_domain_path, strings("5"));
            if (answer.empty()) held.pop_back();
        }
        REQUIRE(answer != "");
    }
}

TEST_CASE("xsa_468 the socket of a domain is open to its owner only") {
    StoreHost host({5}, prepare);
    const auto mode = std::filesystem::status(host.path(5)).permissions();
    CHECK(mode == (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
}
