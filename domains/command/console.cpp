#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "backends/console/attach.h"
#include "domains/command/command.h"
#include "domains/domain/terminal.h"
#include "domains/toolstack/toolstack.h"

namespace caisson::command {
namespace {

using toolstack::State;
using toolstack::Toolstack;

constexpr char leave = 0x1D;  // Ctrl-], as xl's

// A console by number or by its channel's name; the names are Dom0's copy.
Result<toolstack::DeviceLink> find_console(Toolstack& toolstack, DomainId domain, const std::string& wanted) {
    const auto number = parse_decimal<std::uint32_t>(wanted);
    const auto devices = TRY(toolstack::devices_of(toolstack.store(), domain));
    for (const auto& link : devices) {
        if (link.device_class != "console") continue;
        const auto name = TRY(toolstack.store().read(toolstack::trusted_path(link) + "/name"));
        if (number ? link.id.raw == *number : name == wanted) return link;
    }
    return unsupported("", "the domain has no console '" + wanted + "'");
}

// The root in which the backend's names mean something.
Result<Fd> root_of(Toolstack& toolstack, DomainId backend) {
    std::string path = "/";
    if (backend != control_domain) {
        const auto domain = TRY(toolstack.find(std::to_string(backend.raw)));
        if (!domain.record || !alive(domain.record->init)) return host_fault(ESRCH, "the console's backend domain");
        path = fmt::format("/proc/{}/root", domain.record->init.pid);
    }
    Fd root(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) return host_fault(errno, "open", path);
    return root;
}

Result<Fd> open_console(Toolstack& toolstack, const ConsoleOptions& options) {
    const auto domain = TRY(toolstack.find(options.domain));
    const auto link = TRY(find_console(toolstack, domain.usage.id, options.channel));
    const auto back = toolstack::backend_path(link);
    console::AttachPoint point;
    point.tty = TRY(toolstack.store().read(back + "/tty")).value_or("");
    point.path = TRY(toolstack.store().read(back + "/path")).value_or("");
    if (point.tty.empty() && point.path.empty())
        return unsupported("", "the console is not served (yet): its backend domain " +
                                   std::to_string(link.backend.raw) + " has not said where it is");
    const Fd root = TRY(root_of(toolstack, link.backend));
    return console::attach(root.get(), point);
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        pollfd ready{fd, POLLOUT, 0};
        if (::poll(&ready, 1, -1) < 0 && errno != EINTR) return false;
        const ssize_t put = ::write(fd, bytes.data(), bytes.size());
        if (put < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (put > 0) bytes.remove_prefix(static_cast<std::size_t>(put));
    }
    return true;
}

enum class Read : std::uint8_t { some, none, end };
Read read_some(int fd, std::array<char, 4096>& buffer, std::string_view& bytes) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Read::none;
    if (got <= 0) return Read::end;
    bytes = {buffer.data(), static_cast<std::size_t>(got)};
    return Read::some;
}

// Until the person leaves, the console ends, or standard input ended and the console fell silent.
int converse(const Fd& line) {
    constexpr int silence_ms = 1000;
    std::array<char, 4096> buffer;
    bool input = true;
    while (true) {
        pollfd ready[] = {{line.get(), POLLIN, 0}, {input ? STDIN_FILENO : -1, POLLIN, 0}};
        const int count = ::poll(ready, 2, input ? -1 : silence_ms);
        if (count < 0 && errno != EINTR) return exit_failed;
        if (count == 0) return exit_ok;
        std::string_view bytes;
        if (ready[0].revents != 0) {
            const Read read = read_some(line.get(), buffer, bytes);
            if (read == Read::end) return say("the console is gone"), exit_ok;
            if (read == Read::some && !write_all(STDOUT_FILENO, bytes)) return exit_ok;
        }
        if (ready[1].revents != 0) {
            const Read read = read_some(STDIN_FILENO, buffer, bytes);
            const auto end = read == Read::some ? bytes.find(leave) : bytes.npos;
            if (read == Read::some && !write_all(line.get(), bytes.substr(0, end))) return exit_failed;
            if (end != bytes.npos) return exit_ok;
            if (read == Read::end) input = false;
        }
    }
}

}  // namespace

int console(const State& state, const ConsoleOptions& options) {
    auto toolstack = Toolstack::open(state);
    if (!toolstack) return complain(toolstack.error());
    const auto line = open_console(*toolstack, options);
    if (!line) return complain(line.error());
    if (::isatty(STDIN_FILENO) == 1) say("attached to " + options.domain + "; leave with Ctrl-]");
    const domain::RawTerminal raw;
    return converse(*line);
}

}  // namespace caisson::command
