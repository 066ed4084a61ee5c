// A compromised worker tries everything: each attempt in a sealed process of its own, so that a kill can be seen.
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <map>
#include <string>

#include "domains/sandbox/sandbox.h"
#include "domains/worker/mailbox.h"
#include "tests/support/child.h"

using namespace caisson;

namespace {

// What an attempt says by its exit status; a kill says SIGSYS.
constexpr int escaped_sandbox = 0, not_sealed = 99;

int errno_or_escaped(long result) { return result >= 0 ? escaped_sandbox : errno; }

std::map<std::string, int (*)()>& attempts() {
    static std::map<std::string, int (*)()> all{
        {"nothing", [] { return 42; }},
        {"open", [] { return errno_or_escaped(::open("/etc/passwd", O_RDONLY)); }},
        {"open_root", [] { return errno_or_escaped(::syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY)); }},
        {"creat", [] { return errno_or_escaped(::syscall(SYS_openat, AT_FDCWD, "/x", O_CREAT | O_WRONLY, 0600)); }},
        {"socket", [] { return errno_or_escaped(::socket(AF_INET, SOCK_STREAM, 0)); }},
        {"unix_socket", [] { return errno_or_escaped(::socket(AF_UNIX, SOCK_STREAM, 0)); }},
        {"ptrace", [] { return errno_or_escaped(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr)); }},
        {"fork", [] { return errno_or_escaped(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }},
        {"vfork", [] { return errno_or_escaped(::syscall(SYS_clone3, nullptr, 0)); }},
        {"execve",
         [] {
             char* const none[] = {nullptr};
             return errno_or_escaped(::execve("/bin/sh", none, none));
         }},
        {"kill", [] { return errno_or_escaped(::kill(1, SIGTERM)); }},
        {"kill_all", [] { return errno_or_escaped(::syscall(SYS_kill, -1, SIGKILL)); }},
        {"set_flags", [] { return errno_or_escaped(::fcntl(3, F_SETFL, 0)); }},
        {"not_blocking",
         [] {
             int on = 0;
             return errno_or_escaped(::ioctl(3, FIONBIO, &on));
         }},
        {"ioctl", [] { return errno_or_escaped(::ioctl(3, FIONREAD, nullptr)); }},
        {"map_code",
         [] {
             void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
             return page == MAP_FAILED ? errno : escaped_sandbox;
         }},
        {"protect_code",
         [] {
             void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
             return errno_or_escaped(::mprotect(page, 4096, PROT_READ | PROT_EXEC));
         }},
        {"mount", [] { return errno_or_escaped(::mount("none", "/", "tmpfs", 0, nullptr)); }},
        {"unshare", [] { return errno_or_escaped(::unshare(CLONE_NEWUSER)); }},
        {"set_user", [] { return errno_or_escaped(::syscall(SYS_setuid, 0)); }},
        {"prctl", [] { return errno_or_escaped(::prctl(PR_SET_DUMPABLE, 1)); }},
        {"io_uring", [] { return errno_or_escaped(::syscall(SYS_io_uring_setup, 1, nullptr)); }},
        {"io_uring_register", [] { return errno_or_escaped(::syscall(SYS_io_uring_register, 3, 0, nullptr, 0)); }},
        {"memfd", [] { return errno_or_escaped(::memfd_create("x", 0)); }},
        {"truncate", [] { return errno_or_escaped(::ftruncate(3, 0)); }},
        {"limits",
         [] {
             rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
             return errno_or_escaped(::prlimit(0, RLIMIT_NOFILE, &unlimited, nullptr));
         }},
        {"other_process",
         [] { return errno_or_escaped(::syscall(SYS_process_vm_readv, 1, nullptr, 0, nullptr, 0, 0)); }},
        {"pidfd", [] { return errno_or_escaped(::syscall(SYS_pidfd_open, 1, 0)); }},
        {"bpf", [] { return errno_or_escaped(::syscall(SYS_bpf, 0, nullptr, 0)); }},
        {"userfault", [] { return errno_or_escaped(::syscall(SYS_userfaultfd, 0)); }},
        {"send_to_address",
         [] {
             const char address[16]{};
             return errno_or_escaped(::syscall(SYS_sendto, 3, "x", 1, 0, address, sizeof address));
         }},
    };
    return all;
}

// The main of a sealed child: `test_unit sealed ATTEMPT NAMESPACES`.
const bool registered = test::add_child("sealed", [](int argc, char** argv) {
    if (argc != 4 || !attempts().contains(argv[2])) return not_sealed;
    int (*const attempt)() = attempts().at(argv[2]);
    if (!seal({.namespaces = argv[3][0] == '1', .policy = {}})) return not_sealed;
    ::_exit(attempt());
});

siginfo_t outcome(const std::string& attempt) {
    auto [ours, theirs] = *make_mail_sockets();
    // Whether we get namespaces is known only after the start; they are there when a first child had them.
    static const bool namespaces = [] {
        auto [a, b] = *make_mail_sockets();
        const auto probe = spawn_isolated({.arguments = {"sealed", "nothing", "0"}, .control = b.get(), .log = 2});
        siginfo_t info{};
        ::waitid(P_PIDFD, static_cast<id_t>(probe->pidfd.get()), &info, WEXITED);
        return probe->namespaces;
    }();
    const auto child =
        spawn_isolated({.arguments = {"sealed", attempt, namespaces ? "1" : "0"}, .control = theirs.get(), .log = 2});
    REQUIRE(child);
    siginfo_t info{};
    REQUIRE(::waitid(P_PIDFD, static_cast<id_t>(child->pidfd.get()), &info, WEXITED) == 0);
    return info;
}

}  // namespace

TEST_CASE("a sealed worker can do what it is there for") {
    const siginfo_t info = outcome("nothing");
    CHECK(info.si_code == CLD_EXITED);
    CHECK(info.si_status == 42);
}

TEST_CASE("a compromised worker is denied everything it tries") {
    if (sanitized) {
        WARN("skipped: a sanitizer's run-time makes system calls of its own, so this build has no seccomp filter");
        return;
    }
    const std::map<std::string, int> answered{
        {"open", ENOENT}, {"open_root", ENOENT}, {"creat", ENOENT}, {"set_flags", EPERM}, {"not_blocking", EPERM}};
    for (const auto& [name, attempt] : attempts()) {
        if (name == "nothing") continue;
        INFO(name);
        const siginfo_t info = outcome(name);
        if (const auto expected = answered.find(name); expected != answered.end()) {
            CHECK(info.si_code == CLD_EXITED);
            CHECK(info.si_status == expected->second);
        } else {
            const bool killed = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
            CHECK(killed);
            CHECK(info.si_status == SIGSYS);
        }
    }
}
