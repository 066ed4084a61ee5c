#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "domains/sandbox/sandbox.h"

namespace caisson {
namespace {

// A directory to cover with our tmpfs. The first two are in every Unix; an initramfs may have only the others.
Result<const char*> cover_with_tmpfs() {
    for (const char* place : {"/tmp", "/proc", "/dev", "/run"})
        if (::mount("none", place, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=4,mode=0555") == 0)
            return place;
    return host_fault(errno, "mount of an empty root");
}

}  // namespace

Status empty_root() {
    // Not private: what cannot be taken down below goes when it goes outside, if mounts are shared there.
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return host_fault(errno, "mounts of our own");
    const char* place = TRY(cover_with_tmpfs());
    if (::chdir(place) != 0) return host_fault(errno, "chdir", place);
    if (::syscall(SYS_pivot_root, ".", ".") == 0) {
        if (::umount2(".", MNT_DETACH) != 0) return host_fault(errno, "umount of the old root");
    } else {
        // An initramfs cannot be pivoted away from: move our root over it instead. What was mounted when we began stays
        // under it, and in use for whoever unmounts it, unless mounts are shared.
        if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) return host_fault(errno, "move of the empty root");
        if (::chroot(".") != 0) return host_fault(errno, "chroot");
    }
    if (::chdir("/") != 0) return host_fault(errno, "chdir");
    if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) !=
        0)
        return host_fault(errno, "read-only root");
    return {};
}

void become_nobody() {
    // Where user 1 is not mapped the calls fail, and we stay the user that the controller is.
    (void)!::syscall(SYS_setresgid, 1, 1, 1);
    (void)!::syscall(SYS_setresuid, 1, 1, 1);
}

Status limit_resources(const WorkerPolicy& policy) {
    const auto limit = [](int what, rlim_t most) -> Status {
        const rlimit both{most, most};
        if (::setrlimit(static_cast<__rlimit_resource_t>(what), &both) != 0) return host_fault(errno, "setrlimit");
        return {};
    };
    TRY(limit(RLIMIT_CORE, 0));
    TRY(limit(RLIMIT_MSGQUEUE, 0));
    TRY(limit(RLIMIT_MEMLOCK, 0));
    TRY(limit(RLIMIT_NPROC, 16));  // no fork passes the filter; io_uring's own threads count, too
    TRY(limit(RLIMIT_FSIZE, policy.max_file_size));
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    TRY(limit(RLIMIT_NOFILE, std::min<rlim_t>(files.rlim_max, 4096)));  // eight queues and their channels, many times
    if (!sanitized) TRY(limit(RLIMIT_DATA, rlim_t{1} << 30));
    return {};
}

void lock_capabilities() {
    constexpr int locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                           SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                           SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    // Without CAP_SETPCAP there is nothing to lock and nothing to drop but what capset takes below.
    (void)!::prctl(PR_SET_SECUREBITS, locked);
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
        ::prctl(PR_CAPBSET_DROP, capability);
}

Status drop_capabilities() {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct none[2]{};
    if (::syscall(SYS_capset, &header, none) != 0) return host_fault(errno, "capset");
    return {};
}

Status forbid_privileges() {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return host_fault(errno, "no_new_privs");
    if (::prctl(PR_SET_DUMPABLE, 0) != 0) return host_fault(errno, "not dumpable");
    // Again: a change of user has cleared it.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return host_fault(errno, "parent's death");
    return {};
}

// When memory is short a worker, which has a successor, goes before its controller, which has none.
void volunteer_for_oom() {
    const Fd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
    if (score) (void)!::write(score.get(), "500", 3);
}

Status seal(const SealOptions& options) {
    volunteer_for_oom();
    if (options.namespaces) TRY(empty_root());
    lock_capabilities();  // needs what a change of user takes away
    if (options.namespaces) become_nobody();
    TRY(limit_resources(options.policy));
    TRY(drop_capabilities());
    TRY(forbid_privileges());
    restrict_with_landlock();
    if (!sanitized) TRY(filter_system_calls(options.policy, options.xen));
    return {};
}

}  // namespace caisson
