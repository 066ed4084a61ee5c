#include "backends/console/attach.h"

#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <cstring>

#include "protocols/console.h"

namespace caisson::console {

namespace {

Result<Fd> open_inside(int root, const std::string& path, std::uint64_t flags) {
    if (!valid_path(path)) return host_fault(EINVAL, "console's place in the backend's domain", path);
    open_how how{.flags = flags | O_CLOEXEC, .mode = 0, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    Fd found(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
    if (!found) return host_fault(errno, "open a console", path);
    return found;
}

Result<Fd> attach_pty(int root, const std::string& path) {
    // Look before opening: opening some other device may do something.
    Fd place = TRY(open_inside(root, path, O_PATH));
    struct stat status{};
    if (::fstat(place.get(), &status) != 0) return host_fault(errno, "stat a console", path);
    const unsigned major_number = major(status.st_rdev);
    if (!S_ISCHR(status.st_mode) || major_number < 136 || major_number > 143)  // Unix98 pty slaves, devices.txt
        return host_fault(ENOTTY, "a console that is not a pty", path);
    const std::string self = "/proc/self/fd/" + std::to_string(place.get());  // the same node, not the name again
    Fd slave(::open(self.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    if (!slave) return host_fault(errno, "open a console", path);
    return slave;
}

Result<Fd> attach_socket(int root, const std::string& path) {
    Fd place = TRY(open_inside(root, path, O_PATH));
    struct stat status{};
    if (::fstat(place.get(), &status) != 0 || !S_ISSOCK(status.st_mode))
        return host_fault(ENOTSOCK, "a console that is not a socket", path);
    const std::string self = "/proc/self/fd/" + std::to_string(place.get());
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, self.data(), self.size());
    Fd line(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!line || ::connect(line.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        return host_fault(errno, "connect to a console", path);
    return line;
}

}  // namespace

Result<Fd> attach(int root, const AttachPoint& point) {
    if (!point.tty.empty()) return attach_pty(root, point.tty);
    if (!point.path.empty()) return attach_socket(root, point.path);
    return host_fault(ENOENT, "a console that nobody offers: neither tty nor path in the backend's directory");
}

}  // namespace caisson::console
