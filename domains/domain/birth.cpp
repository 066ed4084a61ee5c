#include "domains/domain/birth.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>

#include "domains/domain/process.h"
#include "domains/domain/root.h"
#include "ring/kernel_setting.h"

namespace caisson::domain {
namespace {

constexpr std::size_t longest_note = 512;
constexpr rlim_t most_processes = 4096;  // of one domain: a fork bomb stays at home
// So that the kernel, short of memory, kills in a domain before it kills the hypervisor or the toolstack. Set from
// outside: where we have CAP_SYS_RESOURCE it cannot be lowered inside; else a domain can lower its own again, to what
// we have.
constexpr const char* killed_first = "800";

// ---- Words between the toolstack and PID 1, before the guest exists: a text, and descriptors ----

Status send_note(int socket, const std::string& text, std::span<const int> descriptors) {
    iovec io{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 2)> control{};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
        std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
    }
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) return host_fault(errno, "talk to the newborn domain");
    return {};
}

struct Note {
    std::string text;
    std::vector<Fd> descriptors;
};

Result<Note> receive_note(int socket) {
    std::array<char, longest_note> text{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 2)> control{};
    iovec io{.iov_base = text.data(), .iov_len = text.size()};
    msghdr message{};
    message.msg_iov = &io;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    ssize_t length = 0;
    do length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    if (length < 0) return host_fault(errno, "talk to the newborn domain");
    Note note{.text = std::string(text.data(), static_cast<std::size_t>(length)), .descriptors = {}};
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        for (std::size_t at = 0; at + sizeof(int) <= header->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
            note.descriptors.emplace_back(fd);
        }
    }
    if (length == 0) return host_fault(EPIPE, "the newborn domain died");
    return note;
}

// ---- PID 1, until it becomes domain-init ----

Result<Fd> listen_at(const char* path, int type) {
    Fd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return host_fault(errno, "socket", path);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return host_fault(errno, "bind", path);
    if (::listen(socket.get(), 64) != 0) return host_fault(errno, "listen", path);
    return socket;
}

Status become_root(bool own_range) {
    if (::setgroups(0, nullptr) != 0 && errno != EPERM) return host_fault(errno, "setgroups");
    if (::setresgid(0, 0, 0) != 0) return host_fault(errno, "setresgid");
    if (::setresuid(0, 0, 0) != 0) return host_fault(errno, "setresuid");
    // Nobody outside the domain's own user namespace may be traced or read through it meanwhile.
    if (::prctl(PR_SET_DUMPABLE, 0) != 0) return host_fault(errno, "prctl");
    const rlimit processes{.rlim_cur = most_processes, .rlim_max = most_processes};
    if (own_range && ::setrlimit(RLIMIT_NPROC, &processes) != 0) return host_fault(errno, "setrlimit");
    return limit_descriptors(service_descriptors, service_descriptors);
}

// From a user namespace below: the kernel lets nobody there uncover, remount or unmount what was mounted above it, so
// the files of the machine stay read-only and the covered folders covered, whatever the domain's root tries. The
// network, the host name and the rest belong to the lower one. Only a process of the upper one may write its id maps:
// `writer`.
Status lock_mounts(bool own_range) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return host_fault(errno, "socketpair");
    Fd ours(pair[0]), theirs(pair[1]);
    const pid_t writer = ::fork();
    if (writer < 0) return host_fault(errno, "fork");
    if (writer == 0) {
        ours.reset();
        char go = 0;
        const std::string map = own_range ? "0 0 " + std::to_string(IdRange::ids) : "0 0 1";
        const bool done = ::recv(theirs.get(), &go, 1, 0) == 1 && write_setting("/proc/1/uid_map", map) &&
                          write_setting("/proc/1/gid_map", map);
        ::_exit(done ? 0 : 1);
    }
    theirs.reset();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
        return host_fault(errno, "make the domain's own namespaces");
    ::prctl(PR_SET_DUMPABLE, 1);  // or /proc/1 belongs to the machine's root
    int status = 1;
    if (::send(ours.get(), "", 1, MSG_NOSIGNAL) != 1 || ::waitpid(writer, &status, 0) != writer || status != 0)
        return host_fault(EPERM, "map the domain's ids");
    ::prctl(PR_SET_DUMPABLE, 0);
    // Of the new network; where the kernel refuses, the one of an empty network stays.
    (void)::mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
    return {};
}

Status raise_loopback() {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strncpy(request.ifr_name, "lo", IFNAMSIZ - 1);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (!socket || ::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return host_fault(errno, "bring up lo");
    return {};
}

Status furnish(const BirthOptions& options, int talk, const Fd& program) {
    TRY(receive_note(talk));  // the user ids are mapped
    ::umask(022);
    const bool own_range = ::geteuid() != 0;  // else this user's id, as which more than this domain runs
    TRY(become_root(own_range));
    TRY(enter_new_root({.memory_mib = options.memory_mib,
                        .hidden = options.hidden,
                        .binds = options.binds,
                        .program = program.get()}));
    TRY(lock_mounts(own_range));
    if (::sethostname(options.name.data(), options.name.size()) != 0) return host_fault(errno, "sethostname");
    TRY(raise_loopback());
    const Fd hypervisor = TRY(listen_at(hypervisor_socket, SOCK_SEQPACKET));
    const Fd xenstored = TRY(listen_at(xenstored_socket, SOCK_STREAM));
    const std::array fds{hypervisor.get(), xenstored.get()};
    return send_note(talk, "ready", fds);
}

Status become_init(int talk, int output) {
    Note go = TRY(receive_note(talk));
    if (go.descriptors.size() != 1) return host_fault(EPROTO, "the domain's plan");
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const int out = output >= 0 ? output : null.get();
    if (::dup2(null.get(), 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) return host_fault(errno, "dup2");
    // dup2 onto itself would leave close-on-exec set.
    const int plan = ::fcntl(go.descriptors[0].get(), F_DUPFD, plan_descriptor + 1);
    if (plan < 0 || ::dup2(plan, plan_descriptor) < 0) return host_fault(errno, "dup2");
    ::syscall(SYS_close_range, plan_descriptor + 1, ~0u, 0);
    ::setsid();
    const char* const arguments[] = {command_inside, "domain-init", nullptr};
    const auto variables = environment();
    std::vector<char*> pointers;
    for (const auto& variable : variables) pointers.push_back(const_cast<char*>(variable.c_str()));
    pointers.push_back(nullptr);
    ::execve(command_inside, const_cast<char* const*>(arguments), pointers.data());
    return host_fault(errno, "exec", command_inside);
}

[[noreturn]] void first_process(const BirthOptions& options, int talk, const Fd& program) {
    auto done = furnish(options, talk, program);
    if (done) done = become_init(talk, options.output);
    (void)send_note(talk, "failed " + std::to_string(done.error().err) + " " + done.error().message().substr(0, 400),
                    {});
    ::_exit(1);
}

// ---- The toolstack's side ----

// As root: a range of its own for each living domain. As a user: the only mapping the kernel allows, this user.
Status map_ids(pid_t child, const std::optional<IdRange>& range) {
    const std::string base = "/proc/" + std::to_string(child);
    if (range) {
        const std::string map = "0 " + std::to_string(range->first()) + " " + std::to_string(IdRange::ids);
        TRY(write_setting(base + "/uid_map", map));
        return write_setting(base + "/gid_map", map);
    }
    TRY(write_setting(base + "/setgroups", "deny"));
    TRY(write_setting(base + "/uid_map", "0 " + std::to_string(::geteuid()) + " 1"));
    return write_setting(base + "/gid_map", "0 " + std::to_string(::getegid()) + " 1");
}

std::unexpected<Error> no_namespaces(int err) {
    return host_fault(err, "make namespaces for a domain",
                      err == EPERM || err == ENOSPC || err == ENOSYS
                          ? "(the kernel refuses: allow it with sysctl kernel.unprivileged_userns_clone=1 and "
                            "user.max_user_namespaces=10000, or run as root; in a container, with --privileged)"
                          : "");
}

struct Cloned {
    pid_t pid = 0;  // 0 in the child
    Fd pidfd;
};

Result<Cloned> clone_into_namespaces() {
    int pidfd = -1;
    clone_args arguments{};
    // A network already, only so that /sys is not the machine's; lock_mounts() makes the domain's own.
    arguments.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_PIDFD;
    arguments.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
    arguments.exit_signal = SIGCHLD;
    const auto pid = ::syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0) return no_namespaces(errno);
    return Cloned{.pid = static_cast<pid_t>(pid), .pidfd = Fd(pid == 0 ? -1 : pidfd)};
}

}  // namespace

std::vector<std::string> environment() {
    return {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "USER=root",
            "container=caisson",
            std::string("CAISSON_HYPERVISOR=") + hypervisor_socket,
            std::string("XENSTORED_PATH=") + xenstored_socket};
}

Newborn::Newborn(Newborn&& other) noexcept
    : pid_(other.pid_),
      pidfd_(std::move(other.pidfd_)),
      talk_(std::move(other.talk_)),
      hypervisor_(std::move(other.hypervisor_)),
      xenstored_(std::move(other.xenstored_)),
      ids_(std::move(other.ids_)),
      started_(std::exchange(other.started_, true)) {}

Newborn::~Newborn() {
    if (started_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

Result<Newborn> bear(const BirthOptions& options) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return host_fault(errno, "socketpair");
    Fd ours(pair[0]), theirs(pair[1]);
    // Here, with the rights that the domain's user has not: it may not enter the folder that this program is in.
    const Fd program(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    Cloned child = TRY(clone_into_namespaces());
    if (child.pid == 0) {
        ours.reset();
        first_process(options, theirs.get(), program);
    }
    theirs.reset();
    Newborn born(child.pid, std::move(child.pidfd), std::move(ours));
    (void)write_setting("/proc/" + std::to_string(child.pid) + "/oom_score_adj", killed_first);
    if (::geteuid() == 0) born.ids_ = TRY(IdRange::claim(static_cast<std::uint64_t>(::getpid())));
    if (auto mapped = map_ids(child.pid, born.ids_); !mapped) return no_namespaces(mapped.error().err);
    TRY(send_note(born.talk_.get(), "mapped", {}));
    Note ready = TRY(receive_note(born.talk_.get()));
    if (ready.text.starts_with("failed ")) {
        char* rest = nullptr;
        const auto err = static_cast<int>(std::strtol(ready.text.c_str() + 7, &rest, 10));
        return std::unexpected(
            Error{.fault = Fault::unsupported, .err = err, .what = "inside the new domain:", .detail = rest});
    }
    if (ready.descriptors.size() != 2) return host_fault(EPROTO, "the newborn domain's sockets");
    born.hypervisor_ = std::move(ready.descriptors[0]);
    born.xenstored_ = std::move(ready.descriptors[1]);
    return born;
}

Status Newborn::start(const Plan& plan) {
    const std::string json = to_json(plan);
    Fd memory(::memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory || ::write(memory.get(), json.data(), json.size()) != static_cast<ssize_t>(json.size()))
        return host_fault(errno, "the domain's plan");
    ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    const int fd = memory.get();
    TRY(send_note(talk_.get(), "go", {&fd, 1}));
    auto answer = receive_note(talk_.get());  // exec closes the other end; a text is a failure
    if (answer)
        return std::unexpected(Error{.fault = Fault::unsupported, .err = EIO, .what = "", .detail = answer->text});
    started_ = true;
    hypervisor_.reset();
    xenstored_.reset();
    return {};
}

}  // namespace caisson::domain
