// A local domain comes into the world: a process tree in user, pid, mount, net, ipc and uts namespaces of its own,
// whose first process owns the two sockets through which the domain reaches its hypervisor and its xenstored.
//
// Two steps, so that nothing of the guest runs before the domain exists for the broker and in xenstore: bear() returns
// with PID 1 waiting, start() lets it go on. A Newborn that is destroyed before start() is killed.
//
// No root is needed where the kernel lets users make user namespaces. As root each domain gets a range of 65536 user
// ids that nobody else has, so that a file only the machine's root may read is out of its reach; as a user the domain's
// root is that user outside.
//
// Threads: bear() forks, so the calling process has one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "domains/domain/ids.h"
#include "domains/domain/plan.h"
#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::domain {

// Where things are inside a domain.
inline constexpr const char* hypervisor_socket = "/run/caisson/hypervisor";  // SOCK_SEQPACKET, ring/local
inline constexpr const char* xenstored_socket = "/run/xen/xenstored.sock";   // SOCK_STREAM, XENSTORED_PATH
inline constexpr const char* command_inside = "/run/caisson/caisson";        // this program, read-only
inline constexpr const char* stats_folder = "/run/caisson/stats";            // DeviceStats files

struct BirthOptions {
    std::string name;  // the host name inside
    std::uint64_t memory_mib = 128;
    std::vector<std::string> hidden;  // folders of the machine that the domain must not see, besides /home and its like
    std::vector<std::string> binds;   // paths of the machine that the domain may write, as far as their owners let it
    int output = -1;                  // PID 1's standard output and error
};

class Newborn {
  public:
    Newborn(pid_t pid, Fd pidfd, Fd talk) : pid_(pid), pidfd_(std::move(pidfd)), talk_(std::move(talk)) {}
    Newborn(Newborn&& other) noexcept;
    Newborn& operator=(Newborn&&) = delete;
    ~Newborn();

    pid_t pid() const { return pid_; }  // outside
    const Fd& pidfd() const { return pidfd_; }
    const Fd& hypervisor_listener() const { return hypervisor_; }
    const Fd& xenstored_listener() const { return xenstored_; }

    // PID 1 becomes `caisson domain-init` with this plan. From here on the domain lives by itself.
    Status start(const Plan& plan);

  private:
    friend Result<Newborn> bear(const BirthOptions& options);
    pid_t pid_;
    Fd pidfd_, talk_, hypervisor_, xenstored_;
    std::optional<IdRange> ids_;  // as root; held as long as somebody looks after the domain
    bool started_ = false;
};

// Errors say what the machine refuses and how to allow it (err EPERM: no user namespaces).
Result<Newborn> bear(const BirthOptions& options);

// The environment of every program of a domain.
std::vector<std::string> environment();

// The file descriptor on which `caisson domain-init` finds its plan.
inline constexpr int plan_descriptor = 3;

}  // namespace caisson::domain
