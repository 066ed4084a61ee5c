#include "backends/block/nbd_connections.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <chrono>

#include "ring/local/message.h"

namespace caisson::block::backend {

namespace {

constexpr std::chrono::seconds see_off_patience{3};

Result<std::pair<Fd, Fd>> pair_of_sockets(int type) {
    int ends[2];
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return host_fault(errno, "socketpair");
    return std::pair(Fd(ends[0]), Fd(ends[1]));
}

}  // namespace

Result<std::shared_ptr<NbdConnections>> NbdConnections::make(TargetName name) {
    auto [ours, workers] = TRY(pair_of_sockets(SOCK_SEQPACKET));
    return std::shared_ptr<NbdConnections>(new NbdConnections(std::move(name), std::move(ours), std::move(workers)));
}

Result<Fd> NbdConnections::next() {
    auto connected = connect();
    if (!connected && any_) return std::move(TRY(pair_of_sockets(SOCK_STREAM)).first);  // the other end is closed here
    any_ = any_ || connected;
    return connected;
}

// To end a connection that is still used would be worse than to lose it: see_off() reads from it.
Status NbdConnections::renew(std::uint64_t lost) {
    if (last_ && connection_number(last_) != lost) return {};
    const Fd fresh = TRY(connect());
    Status sent = send_connection(ours_, fresh);
    if (!sent) last_.reset();
    return sent;
}

// What the first one was promised has to hold for the successors, too.
Result<Fd> NbdConnections::connect() {
    see_off();
    auto connection = TRY(NbdServer(name_).connect());
    const NbdExport& now = connection.found;
    if (now.bytes < promised_.bytes() || (now.read_only && !read_only_) || now.flush < promised_.flush ||
        now.trim < promised_.discard || now.minimum_block > promised_.sector_size)
        return unsupported("", "the NBD server's export is no longer the one that was connected");
    last_ = TRY(connection.socket.duplicate());
    return std::move(connection.socket);
}

// Writes that were sent over the last connection may still be with the server, and land after those of the next one.
// nbdkit closes a connection when it has done all that came through it; qemu-nbd closes at once, so there the wait
// proves nothing.
void NbdConnections::see_off() {
    if (!last_) return;
    ::shutdown(last_.get(), SHUT_WR);
    const auto end = std::chrono::steady_clock::now() + see_off_patience;
    for (std::array<std::byte, 4096> unread;;) {
        pollfd ready{.fd = last_.get(), .events = POLLIN, .revents = 0};
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) <= 0) break;
        if (::recv(last_.get(), unread.data(), unread.size(), MSG_DONTWAIT) <= 0) break;
    }
    last_.reset();
}

std::uint64_t connection_number(const Fd& connection) {
    struct stat found{};
    return ::fstat(connection.get(), &found) == 0 ? found.st_ino : 0;
}

Status send_connection(const Fd& line, const Fd& connection) {
    const int fd = connection.get();
    const std::byte nothing{};
    if (const int error = local::send(line.get(), std::span(&nothing, 1), std::span(&fd, 1)); error != 0)
        return host_fault(error, "hand over a connection");
    return {};
}

Result<std::optional<Fd>> take_connection(const Fd& line) {
    local::Message message;
    const auto received = local::receive(line.get(), message);
    if (received == local::Received::nothing_yet) return std::nullopt;
    if (received == local::Received::end || message.truncated || message.descriptors.size() != 1)
        return host_fault(ECONNRESET, "the line for connections");
    return std::move(message.descriptors.front());
}

}  // namespace caisson::block::backend
