// A domain that speaks to the broker itself: wrong messages, wrong descriptors, wrong claims, no manners.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <random>

#include "ring/local/connection.h"
#include "tests/support/local_xen.h"

namespace caisson {

using test::LocalXen;
using test::need;

namespace {

Fd raw(const std::string& path) {
    Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    timeval patience{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return socket;
}

std::size_t open_descriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

bool hung_up(const Fd& socket) {
    pollfd waiting{.fd = socket.get(), .events = POLLIN, .revents = 0};
    char byte;
    return ::poll(&waiting, 1, 10'000) == 1 && ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) <= 0;
}

local::Request head(local::Op op, std::uint64_t id) {
    return {.op = static_cast<std::uint32_t>(op), .zero = 0, .id = id};
}

void check_alive(LocalXen& xen) {
    auto a = xen.domain(), b = xen.domain();
    auto pages = need(a.hypervisor->share(b.id, 1, Access::read_write));
    CHECK(b.hypervisor->map(a.id, pages.refs(), Access::read_write));
}

}  // namespace

TEST_CASE("d4_fd_flooding: descriptors that nobody asked for are closed, and so is the connection") {
    LocalXen xen;
    auto guest = xen.domain();
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const std::vector<int> flood(253, null.get());
    const std::size_t before = open_descriptors();
    for (int round = 0; round < 50; ++round) {
        const Fd socket = raw(guest.hypervisor_socket);
        const auto op = round % 2 == 0 ? local::Op::share : local::Op::create_domain;
        const local::ShareRequest request{.head = head(op, 1), .peer = 0, .read_only = 0, .pages = 1};
        REQUIRE(local::send(socket.get(), local::bytes_of(request), flood) == 0);
        CHECK(hung_up(socket));
    }
    CHECK(open_descriptors() <= before + 2);
    check_alive(xen);
    CHECK(xen.info(guest.id).grants == 0);
}

TEST_CASE("d4_fd_flooding: a client that takes no answer loses its connection, not the broker its time") {
    LocalXen xen;
    auto guest = xen.domain(), peer = xen.domain();
    const Fd socket = raw(guest.hypervisor_socket);
    const local::PeerRequest request{.head = head(local::Op::allocate_unbound, 7), .peer = peer.id.raw, .zero = {}};
    bool dropped = false;
    for (int i = 0; i < 100'000 && !dropped; ++i) {
        const int err = local::send(socket.get(), local::bytes_of(request));
        dropped = err != 0 && err != EAGAIN;
    }
    CHECK(dropped);
    check_alive(xen);
    CHECK(xen.info(guest.id).ports == 0);  // what it asked for went with the connection
    CHECK(guest.hypervisor->allocate_unbound(peer.id));
}

TEST_CASE("d4_impersonation: no message makes a guest another domain or Dom0") {
    LocalXen xen;
    auto guest = xen.domain(), victim = xen.domain(), peer = xen.domain();
    auto secret = need(victim.hypervisor->share(peer.id, 1, Access::read_write));
    auto port = need(victim.hypervisor->allocate_unbound(peer.id));
    auto connection = need(local::Connection::open(guest.hypervisor_socket));

    CHECK_FALSE(connection.call<local::ListReply>(local::Op::list_domains, local::ListRequest{}, 0));
    CHECK_FALSE(connection.call<local::Reply>(
        local::Op::destroy_domain,
        local::DestroyRequest{.head = {}, .domain = victim.id.raw, .zero = 0, .generation = 0}, 0));
    CHECK_FALSE(connection.call<local::DomainReply>(local::Op::create_domain, local::CreateRequest{}, 0));
    CHECK_FALSE(guest.hypervisor->map(victim.id, secret.refs(), Access::read_only));
    CHECK_FALSE(guest.hypervisor->bind_interdomain(victim.id, port.port()));
    CHECK_FALSE(guest.hypervisor->reclaim(secret.refs()[0]));
    CHECK_FALSE(connection.call<local::EndReply>(
        local::Op::end, local::RefRequest{.head = {}, .ref = secret.refs()[0].raw, .zero = 0}, 0));
    CHECK_FALSE(local::Control::open(guest.hypervisor_socket));
    CHECK(guest.hypervisor->self() == guest.id);
    CHECK(peer.hypervisor->map(victim.id, secret.refs(), Access::read_only));
}

TEST_CASE("xsa_468_the sockets are for their owner only") {
    LocalXen xen;
    auto guest = xen.domain();
    const auto dom0 = xen.dom0();
    for (const std::string& path : {guest.hypervisor_socket, guest.xenstored, dom0.hypervisor_socket, dom0.xenstored}) {
        struct stat file{};
        REQUIRE(::stat(path.c_str(), &file) == 0);
        CHECK((file.st_mode & 0777) == 0600);
    }
    if (::geteuid() != 0) {
        WARN("skipped: only root can try to be another user");
        return;
    }
    // Even with the modes opened up, Dom0 is the broker's user.
    ::chmod(xen.directory().c_str(), 0777);
    ::chmod((xen.directory() + "/dom0").c_str(), 0777);
    ::chmod(dom0.hypervisor_socket.c_str(), 0777);
    const pid_t other = ::fork();
    if (other == 0) {
        if (::setuid(65534) != 0) ::_exit(2);
        const auto refused = local::Control::open(dom0.hypervisor_socket);
        ::_exit(refused ? 1 : 0);
    }
    int status = 0;
    REQUIRE(::waitpid(other, &status, 0) == other);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("random bytes on the socket end at worst the connection they came on") {
    LocalXen xen;
    auto guest = xen.domain(), peer = xen.domain();
    std::mt19937 random(45);
    Fd socket = raw(guest.hypervisor_socket);
    for (int i = 0; i < 20'000; ++i) {
        std::array<std::byte, local::largest_message> message;
        const std::size_t size = random() % 8 == 0 ? random() % 4097 : random() % 64;
        for (std::size_t at = 0; at < size; ++at)
            message[at] = static_cast<std::byte>(random() % 4 == 0 ? random() : 0);
        if (size >= 4 && random() % 4 != 0) {
            const std::uint32_t op = random() % 20;
            std::memcpy(message.data(), &op, sizeof op);
        }
        const int err = local::send(socket.get(), std::span(message).first(size));
        local::Message answer;
        while (local::receive(socket.get(), answer) == local::Received::message) {
        }
        if (err == EPIPE || err == ECONNRESET) socket = raw(guest.hypervisor_socket);
    }
    check_alive(xen);
    xen.stop();
    CHECK(xen.broker().hypercalls().grants().exact());
}

TEST_CASE("messages that are too long or cut short are refused, each by its size") {
    LocalXen xen;
    auto guest = xen.domain();
    for (std::uint32_t op = 0; op < 20; ++op) {
        Fd socket = raw(guest.hypervisor_socket);
        for (std::size_t size : {std::size_t{1}, sizeof(local::Request) - 1, std::size_t{5000}}) {
            std::vector<std::byte> message(size);
            std::memcpy(message.data(), &op, std::min(sizeof op, size));
            REQUIRE(local::send(socket.get(), message) == 0);
            CHECK(hung_up(socket));
            socket = raw(guest.hypervisor_socket);
        }
        for (std::size_t size = sizeof(local::Request); size < 1200; size += 4) {
            std::vector<std::byte> message(size);
            std::memcpy(message.data(), &op, sizeof op);
            if (local::send(socket.get(), message) != 0) break;
            local::Message answer;
            pollfd waiting{.fd = socket.get(), .events = POLLIN, .revents = 0};
            REQUIRE(::poll(&waiting, 1, 10'000) == 1);
            REQUIRE(local::receive(socket.get(), answer) == local::Received::message);
        }
    }
    check_alive(xen);
}

TEST_CASE("a domain with many connections and costly calls does not make the others wait for them") {
    LocalXen xen;
    auto guest = xen.domain(), victim = xen.domain();
    const local::ShareRequest share{
        .head = head(local::Op::share, 1), .peer = victim.id.raw, .read_only = 0, .pages = 256};
    std::vector<pollfd> all;
    std::vector<Fd> sockets;
    const auto served = [&] { return ::poll(all.data(), all.size(), 0); };
    int most = 0;
    for (int round = 0; round < 5; ++round) {
        for (int i = 0; i < 200; ++i) {  // 200 MiB to make zero
            sockets.push_back(raw(guest.hypervisor_socket));
            all.push_back({.fd = sockets.back().get(), .events = POLLIN, .revents = 0});
        }
        for (const Fd& socket : sockets) REQUIRE(local::send(socket.get(), std::as_bytes(std::span(&share, 1))) == 0);
        const int before = served();
        REQUIRE(victim.hypervisor->allocate_unbound(guest.id));
        most = std::max(most, served() - before);
        all.clear();
        sockets.clear();
        for (int i = 0; i < 5000 && xen.info(guest.id).connections > 1; ++i) ::usleep(1000);
    }
    CHECK(most < 40);  // at most one millisecond a turn, and a few turns
    check_alive(xen);
}

TEST_CASE("connections beyond the quota are refused and leave the others alone") {
    LocalXen xen({.connections = 8});
    auto guest = xen.domain();
    std::vector<Fd> sockets;
    for (int i = 0; i < 40; ++i) sockets.push_back(raw(guest.hypervisor_socket));
    CHECK(hung_up(sockets.back()));
    CHECK_FALSE(guest.hypervisor->restrict_to(std::vector{control_domain}));
    check_alive(xen);
    CHECK(xen.info(guest.id).connections == 8);
    sockets.clear();
    for (int i = 0; i < 1000 && xen.info(guest.id).connections > 1; ++i) ::usleep(1000);
    CHECK(guest.hypervisor->restrict_to(std::vector{control_domain}));
}

}  // namespace caisson
