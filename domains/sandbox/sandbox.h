// Sealing a worker: from here on it has its descriptors and nothing else.
//
// Two halves. spawn_isolated() starts a program in new namespaces; seal(), called by that program itself once it has
// all it needs, takes away the file system, capabilities, limits and nearly every system call. verify() then looks at
// the result from outside, before any device is handed over: the sealed process is not believed.
//
// What must hold or the worker is not used: seccomp, no_new_privs, no capabilities, only declared descriptors. What is
// used where the kernel allows it: namespaces, the empty root, Landlock.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ring/device.h"

namespace caisson {

// Sanitizers need system calls that a sealed process may not make; such a build is sealed in all but seccomp and memory
// limits, and says so.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

// ---- Outside: starting ----

struct Isolated {
    pid_t pid = -1;  // as this process sees it
    Fd pidfd;
    bool namespaces = false;  // user, pid, net, ipc, mount, uts and cgroup namespaces of its own
};

struct Program {
    std::string path = "/proc/self/exe";
    std::vector<std::string> arguments;  // argv, without the program's name
    int control = -1;                    // becomes descriptor 3
    int log = -1;                        // becomes descriptor 2; 0 and 1 are /dev/null
};

// Starts a program that dies with this thread. Where the kernel refuses namespaces it is started without them:
// Isolated::namespaces says so, and it must tell seal().
Result<Isolated> spawn_isolated(const Program& program);

// ---- Inside: sealing ----

struct SealOptions {
    bool namespaces = false;  // we are in namespaces of our own: take the file system away
    bool xen = false;         // the port is Xen's: leave the calls on its devices
    WorkerPolicy policy;
};

// One thread, called once. On an error the process must end: it may be half sealed.
Status seal(const SealOptions& options);

// The parts, in seal()'s order.
void volunteer_for_oom();  // the first that the kernel ends when memory is short
Status empty_root();       // pivot_root into an empty read-only tmpfs
void lock_capabilities();  // none in the bounding set, none for user 0
void become_nobody();      // the user and group that spawn_isolated() set aside, if it could
Status limit_resources(const WorkerPolicy&);
Status drop_capabilities();
Status forbid_privileges();    // no_new_privs, not dumpable, dies with its parent
int restrict_with_landlock();  // the ABI used; 0 where the kernel has none
Status filter_system_calls(const WorkerPolicy&, bool xen = false);

// ---- Outside: verifying ----

struct Inspection {
    int seccomp = 0;  // 2: a filter
    bool no_new_privileges = false;
    std::uint64_t effective = 0, permitted = 0, inheritable = 0, bounding = 0, ambient = 0;  // capabilities
    std::vector<std::string> descriptors;  // what /proc/PID/fd links to, "socket:[1]" shortened to "socket"
    unsigned own_namespaces = 0;           // how many of the seven are not ours
};
inline constexpr unsigned all_namespaces = 7;

Result<Inspection> inspect(pid_t pid);

// The descriptors of an armed worker without devices: 0 and 1 null, 2 log, 3 control, io_uring and eventfd of its loop.
// `xen`: it holds gntdev, too.
Status verify(const Inspection& seen, bool namespaces, bool xen = false);

}  // namespace caisson
