#include "ring/local/connection.h"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>

namespace caisson::local {

namespace {

// A broker that takes longer than this is dead or stopped. Its longest call takes some milliseconds.
constexpr std::chrono::seconds patience{5};
constexpr int most_tries = 4;  // 1, 2, 4, 8 ms: what is on its way is usually taken at once

// Ids of one user of a connection do not meet those of the user before.
std::uint64_t random_start() {
    std::uint64_t start = 0;
    if (::getrandom(&start, sizeof start, GRND_NONBLOCK) != sizeof start)
        start = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    return start;
}

// ppoll, because a sealed worker has no other.
int wait_for(pollfd& ready, std::chrono::milliseconds left) {
    const auto whole = std::chrono::floor<std::chrono::seconds>(left);
    const timespec time{.tv_sec = whole.count(), .tv_nsec = std::chrono::nanoseconds(left - whole).count()};
    return ::ppoll(&ready, 1, &time, nullptr);
}

}  // namespace

Result<Connection> Connection::open(const std::string& socket_path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_path.size() >= sizeof address.sun_path) return host_fault(ENAMETOOLONG, "connect to", socket_path);
    socket_path.copy(address.sun_path, socket_path.size());
    Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return host_fault(errno, "socket");
    // A full backlog is EAGAIN at once for a non-blocking connect: the broker is busy, so wait a little.
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        if ((errno != EAGAIN && errno != EINTR) || std::chrono::steady_clock::now() > deadline)
            return host_fault(errno, "connect to", socket_path);
        ::poll(nullptr, 0, 1);
    }
    return Connection(std::move(socket));
}

Connection::Connection(Fd socket) : socket_(std::move(socket)), last_id_(random_start()) {
    while (receive(socket_.get(), *message_) == Received::message) {
    }
    message_->descriptors.clear();
}

Status Connection::exchange(std::span<const std::byte> request, std::span<const int> descriptors) {
    if (!socket_) return host_fault(ENOTCONN, "hypervisor");
    const int err = send(socket_.get(), request, descriptors);
    if (err == ETOOMANYREFS) return host_fault(EAGAIN, "hypervisor: too many descriptors are on their way");
    if (err != 0) return broken("send");
    while (true) {
        TRY(await());
        switch (receive(socket_.get(), *message_)) {
            case Received::nothing_yet: continue;
            case Received::end: return broken("it hung up");
            case Received::message: break;
        }
        Reply reply;
        if (message_->size < sizeof reply || message_->truncated) return broken("answer of another shape");
        std::memcpy(&reply, message_->bytes.data(), sizeof reply);
        if (reply.id != last_id_) continue;  // to a predecessor on this connection; its descriptors are closed
        if (reply.err == 0) return {};
        const auto fault = reply.fault == static_cast<std::uint32_t>(Fault::peer) ? Fault::peer : Fault::host;
        reply.reason[sizeof reply.reason - 1] = 0;
        Error error{.fault = fault, .err = reply.err, .what = "hypervisor", .got = reply.got, .detail = reply.reason};
        return std::unexpected(std::move(error));
    }
}

Status Connection::await() {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) return broken("no answer in time");
        pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        const int count = wait_for(ready, left);
        if (count > 0) return {};
        if (count < 0 && errno != EINTR) return broken("poll");
    }
}

bool Connection::again_later(const Error& error, int tries) {
    if (error.err != EAGAIN || tries > most_tries) return false;
    const timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000L << (tries - 1)};
    (void)::ppoll(nullptr, 0, &pause, nullptr);
    return true;
}

std::unexpected<Error> Connection::broken(const char* why) {
    if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
    socket_.reset();
    return host_fault(ENOTCONN, "hypervisor", why);
}

}  // namespace caisson::local
