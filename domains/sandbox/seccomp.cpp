// The system calls of a sealed worker. Everything that is not named here kills the process.
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xen/gntalloc.h>

#include <memory>

using domid_t = std::uint16_t;  // xen/evtchn.h of Linux takes it, and more, from its includer
using grant_ref_t = std::uint32_t;
#include <xen/evtchn.h>
#include <xen/gntdev.h>

#include "domains/sandbox/sandbox.h"

namespace caisson {
namespace {

// What every class needs: its loop, its memory, messages with its controller and the hypervisor, and an orderly end.
constexpr int always[] = {
    SCMP_SYS(read),         SCMP_SYS(write),           SCMP_SYS(readv),
    SCMP_SYS(writev),       SCMP_SYS(recvmsg),         SCMP_SYS(sendmsg),
    SCMP_SYS(poll),         SCMP_SYS(ppoll),           SCMP_SYS(io_uring_enter),
    SCMP_SYS(futex),        SCMP_SYS(clock_gettime),   SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),    SCMP_SYS(munmap),          SCMP_SYS(mremap),
    SCMP_SYS(brk),          SCMP_SYS(close),           SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),   SCMP_SYS(rt_sigreturn),    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction), SCMP_SYS(sched_yield),     SCMP_SYS(membarrier),
    SCMP_SYS(rseq),         SCMP_SYS(getrandom),       SCMP_SYS(gettid),
    SCMP_SYS(getpid),       SCMP_SYS(restart_syscall), SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

// Tried by libraries that can live without: they get an answer instead of death.
constexpr int no_such_file[] = {
    SCMP_SYS(open),       SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(access),   SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2), SCMP_SYS(stat),   SCMP_SYS(lstat),   SCMP_SYS(readlink), SCMP_SYS(readlinkat),
};

// F_SETFL is missing on purpose: the peer of a pipe must not be able to make us clear O_NONBLOCK, nor may a worker that
// shares an open file with its controller.
constexpr int harmless_fcntl[] = {F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_GET_SEALS};

constexpr std::uint64_t xen_requests[] = {
    IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR,
    IOCTL_GNTDEV_GRANT_COPY,    IOCTL_GNTALLOC_ALLOC_GREF,    IOCTL_GNTALLOC_DEALLOC_GREF,
    IOCTL_EVTCHN_NOTIFY,        IOCTL_EVTCHN_UNBIND,
};

constexpr int harmless_madvise[] = {MADV_NORMAL, MADV_WILLNEED, MADV_DONTNEED,
                                    MADV_FREE,   MADV_HUGEPAGE, MADV_NOHUGEPAGE};

struct Release {
    void operator()(void* filter) const { seccomp_release(filter); }
};

class Filter {
  public:
    Filter() : filter_(seccomp_init(SCMP_ACT_KILL_PROCESS)) {}

    template <class... Conditions>
    void add(std::uint32_t action, int call, Conditions... conditions) {
        // A call that this architecture does not have needs no rule.
        const int error = seccomp_rule_add(filter_.get(), action, call, sizeof...(conditions), conditions...);
        if (error != 0 && error != -EDOM && error_ == 0) error_ = error;
    }
    template <class... Conditions>
    void allow(int call, Conditions... conditions) {
        add(SCMP_ACT_ALLOW, call, conditions...);
    }
    Status load() {
        if (!filter_) return host_fault(ENOMEM, "seccomp");
        if (error_ != 0) return host_fault(-error_, "a seccomp rule");
        seccomp_attr_set(filter_.get(), SCMP_FLTATR_CTL_TSYNC, 1);
        seccomp_attr_set(filter_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a binary tree: the hot calls cost little
        if (const int error = seccomp_load(filter_.get()); error != 0) return host_fault(-error, "seccomp");
        return {};
    }

  private:
    std::unique_ptr<void, Release> filter_;
    int error_ = 0;
};

}  // namespace

Status filter_system_calls(const WorkerPolicy& policy, bool xen) {
    Filter filter;
    for (const int call : always) filter.allow(call);
    for (const int call : policy.system_calls) filter.allow(call);
    for (const int call : no_such_file) filter.add(SCMP_ACT_ERRNO(ENOENT), call);

    filter.allow(SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    filter.allow(SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    for (const int advice : harmless_madvise)
        filter.allow(SCMP_SYS(madvise), SCMP_A2(SCMP_CMP_EQ, static_cast<scmp_datum_t>(advice)));
    for (const int command : harmless_fcntl)
        filter.allow(SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, static_cast<scmp_datum_t>(command)));
    filter.add(SCMP_ACT_ERRNO(EPERM), SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_SETFL));
    filter.add(SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO));
    // Says that a connection is lost to whoever else holds it. A worker that does it out of malice has ended itself.
    filter.allow(SCMP_SYS(shutdown));
    // send() and recv(), but to no address: the sockets are connected.
    filter.allow(SCMP_SYS(sendto), SCMP_A4(SCMP_CMP_EQ, 0));
    filter.allow(SCMP_SYS(recvfrom), SCMP_A4(SCMP_CMP_EQ, 0));
    // On the open files of gntdev, gntalloc and evtchn. seccomp sees neither the domain nor the reference.
    if (xen)
        for (const auto request : xen_requests) filter.allow(SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, request));
    // abort() of our own.
    filter.allow(SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(::getpid())),
                 SCMP_A2(SCMP_CMP_EQ, SIGABRT));
    return filter.load();
}

}  // namespace caisson
