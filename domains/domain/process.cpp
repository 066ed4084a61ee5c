#include "domains/domain/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "ring/fd.h"
#include "ring/log.h"

namespace caisson::domain {
namespace {

constexpr std::size_t last_words = 400;

// Only async-signal-safe calls between fork and exec.
[[noreturn]] void become(char* const* arguments, const ChildIo& io) {
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    // Whoever created the domain may have ignored some (a shell does so for what it starts with &); its programs do
    // not.
    for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGCHLD})
        ::signal(signal, SIG_DFL);
    if (io.guest && !limit_descriptors(guest_descriptors_soft, guest_descriptors)) ::_exit(126);
    ::setsid();
    if (!io.terminal.empty()) {
        const int terminal = ::open(io.terminal.c_str(), O_RDWR);
        if (terminal < 0 || ::ioctl(terminal, TIOCSCTTY, 0) != 0) ::_exit(126);
        for (int fd = 0; fd <= 2; ++fd) ::dup2(terminal, fd);
        if (terminal > 2) ::close(terminal);
    } else {
        const int input = io.input >= 0 ? io.input : ::open("/dev/null", O_RDONLY);
        if (input < 0 || ::dup2(input, 0) < 0) ::_exit(126);
        if (io.output >= 0 && (::dup2(io.output, 1) < 0 || ::dup2(io.output, 2) < 0)) ::_exit(126);
    }
    ::execvp(arguments[0], arguments);
    ::_exit(127);
}

Result<Fd> memory_with(std::string_view text) {
    Fd file(::memfd_create("input", MFD_CLOEXEC));
    if (!file) return host_fault(errno, "memfd");
    if (::pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
        return host_fault(errno, "memfd");
    return file;
}

}  // namespace

Status limit_descriptors(unsigned soft, unsigned hard) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return host_fault(errno, "getrlimit");
    limit.rlim_max = std::min<rlim_t>(limit.rlim_max, hard);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, soft);
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return host_fault(errno, "setrlimit");
    return {};
}

Result<pid_t> spawn(const std::vector<std::string>& arguments, const ChildIo& io) {
    std::vector<char*> pointers;
    for (const auto& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);
    const pid_t child = ::fork();
    if (child < 0) return host_fault(errno, "fork", arguments[0]);
    if (child == 0) become(pointers.data(), io);
    return child;
}

Status run(const std::vector<std::string>& arguments, std::string_view input) {
    const Fd in = TRY(memory_with(input)), out = TRY(memory_with(""));
    const pid_t child = TRY(spawn(arguments, {.input = in.get(), .output = out.get(), .terminal = {}}));
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    char words[last_words];
    const off_t size = ::lseek(out.get(), 0, SEEK_END);
    const ssize_t got = ::pread(out.get(), words, sizeof words,
                                size > static_cast<off_t>(sizeof words) ? size - static_cast<off_t>(sizeof words) : 0);
    std::string line;
    for (const auto& argument : arguments) line += (line.empty() ? "" : " ") + argument;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return unsupported("", arguments[0] + " is not installed");
    std::string said(words, static_cast<std::size_t>(got > 0 ? got : 0));
    std::ranges::replace(said, '\n', ' ');  // what else it may hold is escaped by whoever shows it
    return unsupported("", "'" + line + "' failed: " + said);
}

}  // namespace caisson::domain
