#include "domains/domain/join.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "domains/domain/birth.h"
#include "domains/domain/process.h"
#include "domains/domain/terminal.h"

namespace caisson::domain {
namespace {

constexpr int namespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
constexpr int cannot_join = 125;  // as of docker and env: the command was not reached

Status send_descriptor(int socket, int fd) {
    char byte = 0;
    iovec io{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)]{};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) != 1) return host_fault(errno, "hand over the terminal");
    return {};
}

Fd receive_descriptor(int socket) {
    char byte = 0;
    iovec io{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) return {};
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return {};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return Fd(fd);
}

// A terminal of the domain's own devpts, so that programs find it by name; its master goes outside.
Status take_terminal(int socket) {
    const Fd master(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    int unlocked = 0;
    if (!master || ::ioctl(master.get(), TIOCSPTLCK, &unlocked) != 0) return host_fault(errno, "open", "/dev/ptmx");
    const int slave = ::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY);
    if (slave < 0 || ::ioctl(slave, TIOCSCTTY, 0) != 0) return host_fault(errno, "open the domain's terminal");
    TRY(send_descriptor(socket, master.get()));
    for (int fd = 0; fd <= 2; ++fd) ::dup2(slave, fd);
    return {};
}

// In the domain, as its root: becomes the command.
[[noreturn]] void become_command(const JoinOptions& options, int terminal) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setsid();
    if (options.terminal && !take_terminal(terminal)) ::_exit(cannot_join);
    ::syscall(SYS_close_range, 3, ~0u, 0);
    if (::chdir("/root") != 0 && ::chdir("/") != 0) ::_exit(cannot_join);
    std::vector<char*> arguments, variables;
    for (const auto& word : options.command) arguments.push_back(const_cast<char*>(word.c_str()));
    auto surroundings = environment();
    surroundings.insert(surroundings.end(), options.environment.begin(), options.environment.end());
    ::setenv("PATH", surroundings[0].c_str() + std::strlen("PATH="), 1);  // for execvpe's search
    for (const auto& variable : surroundings) variables.push_back(const_cast<char*>(variable.c_str()));
    arguments.push_back(nullptr);
    variables.push_back(nullptr);
    ::execvpe(arguments[0], arguments.data(), variables.data());
    const char* why = std::strerror(errno);
    ::dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], why);
    ::_exit(errno == ENOENT ? 127 : 126);
}

// Joins, then forks: the pid namespace holds only for children.
[[noreturn]] void join(const Fd& init, const JoinOptions& options, int terminal) {
    // As any other program of the guest, see birth.cpp and process.h.
    if (const Fd score{::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)}; score)
        (void)!::write(score.get(), "800", 3);
    if (!limit_descriptors(guest_descriptors_soft, guest_descriptors)) ::_exit(cannot_join);
    // From before the join on: processes of the domain may not trace us, nor reach our files through /proc.
    ::prctl(PR_SET_DUMPABLE, 0);
    if (::setns(init.get(), namespaces) != 0) {
        ::dprintf(STDERR_FILENO, "cannot join the domain: %s\n", std::strerror(errno));
        ::_exit(cannot_join);
    }
    (void)::setgroups(0, nullptr);  // refused, and needless, where one user is mapped
    if (::setresgid(0, 0, 0) != 0 || ::setresuid(0, 0, 0) != 0) ::_exit(cannot_join);
    ::prctl(PR_SET_DUMPABLE, 0);  // the kernel resets it with the ids
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const pid_t command = ::fork();
    if (command < 0) ::_exit(cannot_join);
    if (command == 0) become_command(options, terminal);
    ::close(terminal);
    int status = 0;
    while (::waitpid(command, &status, 0) < 0 && errno == EINTR) continue;
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

}  // namespace

Result<int> run_inside(const Fd& init, const JoinOptions& options) {
    if (::syscall(SYS_pidfd_send_signal, init.get(), 0, nullptr, 0) != 0)
        return host_fault(errno, "the domain's PID 1");
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return host_fault(errno, "socketpair");
    Fd ours(pair[0]), theirs(pair[1]);
    const pid_t child = ::fork();
    if (child < 0) return host_fault(errno, "fork");
    if (child == 0) {
        ours.reset();
        join(init, options, theirs.get());
    }
    theirs.reset();
    if (options.terminal) {
        const Fd master = receive_descriptor(ours.get());
        const Fd ended(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
        if (master) relay_terminal(master, ended);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace caisson::domain
