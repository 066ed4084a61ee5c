#include "domains/hypervisor/xenstore_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

namespace caisson::hypervisor {

namespace {

// So that one client cannot keep the thread: how much is moved before the others get their turn.
constexpr int messages_per_turn = 64;

}  // namespace

XenstoreSockets::~XenstoreSockets() {
    while (!streams_.empty()) close(streams_.begin()->first);
    while (!listeners_.empty()) close(listeners_.begin()->first);
}

Status XenstoreSockets::listen(Fd listener, DomainId domain) {
    const int fd = listener.get();
    if (::fcntl(fd, F_SETFL, O_NONBLOCK) < 0) return host_fault(errno, "xenstored socket");
    listeners_.insert_or_assign(fd, Listener{.fd = std::move(listener), .domain = domain});
    interest_(fd, true, false);
    return {};
}

Status XenstoreSockets::adopt(Fd stream, DomainId domain) {
    const int fd = stream.get();
    if (::fcntl(fd, F_SETFL, O_NONBLOCK) < 0) return host_fault(errno, "xenstored socket");
    // From inside the store only interest changes, or, for the end, a hang-up that the loop will report.
    StoreConnection* connection = TRY(store_.connect(domain, [this, fd] {
        const auto entry = streams_.find(fd);
        if (entry == streams_.end()) return;
        if (entry->second.connection->broken()) ::shutdown(fd, SHUT_RDWR);
        settle(entry->second);
    }));
    streams_.insert_or_assign(fd, Stream{.fd = std::move(stream), .connection = connection});
    settle(streams_.at(fd));
    return {};
}

void XenstoreSockets::accept_all(Listener& listener) {
    for (int i = 0; i < messages_per_turn; ++i) {
        Fd stream(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!stream) return;
        // A domain with too many connections has this one closed at once.
        if (!adopt(std::move(stream), listener.domain)) continue;
    }
}

void XenstoreSockets::on_readable(int fd, StoreTime now) {
    if (const auto listener = listeners_.find(fd); listener != listeners_.end()) return accept_all(listener->second);
    const auto stream = streams_.find(fd);
    if (stream == streams_.end()) return;
    if (!receive(stream->second, now) || !send(stream->second, now)) return close(fd);
    settle(stream->second);
}

void XenstoreSockets::on_writable(int fd, StoreTime now) {
    const auto stream = streams_.find(fd);
    if (stream == streams_.end()) return;
    if (!send(stream->second, now)) return close(fd);
    settle(stream->second);
}

bool XenstoreSockets::receive(Stream& stream, StoreTime now) {
    std::array<std::byte, 8192> buffer;
    StoreConnection& connection = *stream.connection;
    if (connection.broken()) return false;
    const std::size_t room = std::min(connection.room(), buffer.size());
    // Nothing may be read now; that this was called anyway may mean that the client is gone.
    const int flags = room == 0 ? MSG_DONTWAIT | MSG_PEEK : MSG_DONTWAIT;
    const ssize_t got = ::recv(stream.fd.get(), buffer.data(), room == 0 ? 1 : room, flags);
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (room > 0) connection.feed(std::span(buffer).first(static_cast<std::size_t>(got)), now);
    return !connection.broken();
}

bool XenstoreSockets::send(Stream& stream, StoreTime now) {
    StoreConnection& connection = *stream.connection;
    for (int i = 0; i < messages_per_turn; ++i) {
        const auto bytes = connection.output();
        if (connection.broken()) return false;
        if (bytes.empty()) return true;
        const ssize_t sent = ::send(stream.fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN || errno == EINTR;
        connection.drained(static_cast<std::size_t>(sent), now);
    }
    return !connection.broken();
}

void XenstoreSockets::settle(Stream& stream) {
    const StoreConnection& connection = *stream.connection;
    const bool readable = connection.broken() || connection.room() > 0;
    const bool writable = !connection.output().empty();
    if (readable == stream.readable && writable == stream.writable && stream.registered) return;
    stream.readable = readable;
    stream.writable = writable;
    stream.registered = true;
    // A paused client with nothing to read stays known to the loop for its hang-up only.
    interest_(stream.fd.get(), readable, writable);
}

void XenstoreSockets::close(int fd) {
    interest_(fd, false, false);
    if (const auto stream = streams_.find(fd); stream != streams_.end()) {
        const Stream ended = std::move(stream->second);
        streams_.erase(stream);  // first: its end may wake others, never itself
        store_.disconnect(ended.connection);
    }
    listeners_.erase(fd);
}

void XenstoreSockets::close_domain(DomainId domain) {
    std::vector<int> gone;
    for (const auto& [fd, listener] : listeners_)
        if (listener.domain == domain) gone.push_back(fd);
    for (const auto& [fd, stream] : streams_)
        if (stream.connection->who().id == domain) gone.push_back(fd);
    for (const int fd : gone) close(fd);
}

Result<Fd> listen_at(const std::string& path) {
    sockaddr_un address{.sun_family = AF_UNIX};
    if (path.size() >= sizeof address.sun_path) return host_fault(ENAMETOOLONG, "xenstored socket", path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener) return host_fault(errno, "xenstored socket", path);
    ::unlink(path.c_str());
    ::fchmod(listener.get(), 0600);  // the mode that bind() gives the path, less the umask: never open for a moment
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
        ::chmod(path.c_str(), 0600) < 0 || ::listen(listener.get(), SOMAXCONN) < 0)
        return host_fault(errno, "xenstored socket", path);
    return listener;
}

}  // namespace caisson::hypervisor
