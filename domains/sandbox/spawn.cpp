#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>

#include "domains/sandbox/sandbox.h"
#include "ring/kernel_setting.h"

namespace caisson {
namespace {

constexpr std::uint64_t own_namespaces =
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWCGROUP;

// Each worker gets a host user of its own where we may give one: another worker's process is then a stranger's even
// if both leave their namespaces. Far above the ids that distributions hand out.
constexpr std::uint32_t first_worker_user = 1'879'048'192, worker_users = 1 << 16;

// User 0 inside is us: an identity without powers once capabilities are gone, and execve keeps capabilities only for
// it. User 1 is the one that become_nobody() takes.
bool map_users(pid_t pid) {
    static std::atomic<std::uint32_t> next{0};
    const std::string process = "/proc/" + std::to_string(pid) + "/";
    const std::uint32_t other = first_worker_user + next.fetch_add(1) % worker_users;
    const auto map = [&](const char* file, unsigned own) {
        const std::string us = "0 " + std::to_string(own) + " 1\n", nobody = "1 " + std::to_string(other) + " 1\n";
        return write_setting(process + file, us + nobody) || write_setting(process + file, us);
    };
    (void)write_setting(process + "setgroups", "deny");
    return map("uid_map", ::geteuid()) && map("gid_map", ::getegid());
}

// The child of a process with threads: only what is async-signal-safe until execve.
[[noreturn]] void run(const Program& program, char* const* arguments, int go, int null) {
    char byte = 0;
    if (::read(go, &byte, 1) != 1) ::_exit(126);  // mapped, or our parent has given up
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    // Above everything that is about to be replaced.
    const int control = ::fcntl(program.control, F_DUPFD, 10), log = ::fcntl(program.log, F_DUPFD, 10);
    if (control < 0 || log < 0 || ::dup2(null, 0) < 0 || ::dup2(null, 1) < 0 || ::dup2(log, 2) < 0 ||
        ::dup2(control, 3) < 0)
        ::_exit(126);
    ::syscall(SYS_close_range, 4u, ~0u, 0u);
    static char locale[] = "LC_ALL=C";
    char* const environment[] = {locale, nullptr};  // none of the controller's
    ::execve(program.path.c_str(), arguments, environment);
    ::_exit(127);
}

Result<Isolated> spawn(const Program& program, std::uint64_t flags) {
    std::vector<char*> arguments{const_cast<char*>(program.path.c_str())};
    for (const std::string& argument : program.arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    int go[2];
    if (::pipe2(go, O_CLOEXEC) != 0) return host_fault(errno, "pipe");
    const Fd wait(go[0]), started(go[1]), null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) return host_fault(errno, "open", "/dev/null");
    int pidfd = -1;
    clone_args how{};
    how.flags = CLONE_PIDFD | flags;
    how.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
    how.exit_signal = SIGCHLD;
    const auto pid = static_cast<pid_t>(::syscall(SYS_clone3, &how, sizeof how));
    if (pid < 0) return host_fault(errno, "clone");
    if (pid == 0) {
        ::close(go[1]);  // or the read below would wait for ourselves
        run(program, arguments.data(), go[0], null.get());
    }
    Isolated child{.pid = pid, .pidfd = Fd(pidfd), .namespaces = flags != 0};
    if (flags != 0 && !map_users(pid)) {
        const int error = errno;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return host_fault(error, "mapping a worker's user");
    }
    if (::write(started.get(), "", 1) != 1) return host_fault(errno, "starting a worker");
    return child;
}

}  // namespace

Result<Isolated> spawn_isolated(const Program& program) {
    static std::atomic<bool> refused{false};  // do not ask the kernel again for what it never gives
    if (!refused) {
        auto child = spawn(program, own_namespaces);
        if (child || (child.error().err != EPERM && child.error().err != EINVAL && child.error().err != ENOSYS &&
                      child.error().err != EACCES))
            return child;
        refused = true;
        Log("sandbox").say("workers run without namespaces of their own: " + child.error().message());
    }
    return spawn(program, 0);
}

}  // namespace caisson
