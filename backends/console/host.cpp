#include "backends/console/host.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

#include <cstring>
#include <string_view>

namespace caisson::console {

namespace {

Status make_folders(const std::string& path) {
    for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
        if (::mkdir(path.substr(0, at).c_str(), 0755) != 0 && errno != EEXIST && errno != EROFS)
            return host_fault(errno, "make folder", path.substr(0, at));
    return {};
}

// What a predecessor left behind goes; anything else than a socket stays, and bind() will say so.
void remove_socket(const std::string& path) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) ::unlink(path.c_str());
}

Result<OpenHost> open_socket(const std::string& path) {
    TRY(make_folders(path));
    remove_socket(path);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    if (path.size() > longest_socket_path) return host_fault(ENAMETOOLONG, "console socket", path);
    std::memcpy(address.sun_path, path.data(), path.size());
    OpenHost host;
    host.kind = HostKind::socket;
    host.fd.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const mode_t before = ::umask(0177);  // from the first instant on nobody else's
    const bool bound = host.fd && ::bind(host.fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    const int error = errno;
    ::umask(before);
    if (!bound) return host_fault(error, "console socket", path);
    host.where = path;
    if (::listen(host.fd.get(), 4) != 0) return host_fault(errno, "listen on console socket", path);
    return host;
}

}  // namespace

OpenHost::~OpenHost() {
    if (kind == HostKind::socket && fd && !where.empty()) remove_socket(where);
}

Result<OpenHost> open_raw_pty() {
    OpenHost host;
    host.kind = HostKind::pty;
    host.fd.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    if (!host.fd) return host_fault(errno, "open a pty (is there a devpts?)");
    char name[64];
    if (::grantpt(host.fd.get()) != 0 || ::unlockpt(host.fd.get()) != 0 ||
        ::ptsname_r(host.fd.get(), name, sizeof name) != 0)
        return host_fault(errno, "unlock a pty");
    host.slave.reset(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios modes{};
    if (!host.slave || ::tcgetattr(host.slave.get(), &modes) != 0) return host_fault(errno, "open a pty's slave", name);
    ::cfmakeraw(&modes);  // the line discipline is the guest's
    if (::tcsetattr(host.slave.get(), TCSANOW, &modes) != 0) return host_fault(errno, "make a pty raw", name);
    host.where = name;
    return host;
}

Result<OpenHost> open_host(const Settings& settings, DomainId frontend, DeviceId id) {
    switch (settings.host) {
        case HostKind::pty: return open_raw_pty();
        case HostKind::socket:
            return open_socket(!settings.socket_path.empty() ? settings.socket_path
                                                             : "/run/caisson/console/" + std::to_string(frontend.raw) +
                                                                   "." + std::to_string(id.raw) + ".sock");
        case HostKind::none: break;
    }
    return OpenHost{};
}

HostPort::HostPort(HostKind kind, Fd fd) : kind_(kind) {
    (kind == HostKind::socket ? listener_ : line_) = std::move(fd);
}

bool HostPort::accept() {
    Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return false;
    if (attached()) {
        static constexpr std::string_view busy = "caisson: somebody else is attached to this console\r\n";
        iovec text{const_cast<char*>(busy.data()), busy.size()};
        msghdr message{};
        message.msg_iov = &text;
        message.msg_iovlen = 1;
        (void)!::sendmsg(client.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        return false;
    }
    line_ = std::move(client);
    input_ended_ = false;
    return true;
}

short HostPort::look() const {
    static constexpr timespec at_once{};
    pollfd line{.fd = line_.get(), .events = POLLOUT, .revents = 0};
    return ::ppoll(&line, 1, &at_once, nullptr) > 0 ? line.revents : short{0};
}

std::size_t HostPort::write(std::span<const std::byte> bytes) {
    if (!attached() || bytes.empty()) return 0;
    ssize_t count = 0;
    if (kind_ == HostKind::pty) {
        count = ::write(line_.get(), bytes.data(), bytes.size());
    } else {
        iovec text{const_cast<std::byte*>(bytes.data()), bytes.size()};
        msghdr message{};
        message.msg_iov = &text;
        message.msg_iovlen = 1;
        count = ::sendmsg(line_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN && errno != EINTR) hang_up();
    }
    return count < 0 ? 0 : static_cast<std::size_t>(count);
}

std::size_t HostPort::read(std::span<std::byte> to) {
    if (!attached() || input_ended_ || to.empty()) return 0;
    const ssize_t count = ::read(line_.get(), to.data(), to.size());
    if (kind_ == HostKind::socket) {
        if (count == 0) input_ended_ = true;
        if (count < 0 && errno != EAGAIN && errno != EINTR) hang_up();
    }
    return count < 0 ? 0 : static_cast<std::size_t>(count);
}

}  // namespace caisson::console
