// A kernel that takes no more descriptors into sockets: what a domain of the same user does to all others when it sends
// itself descriptors and never takes them out. The kernel counts them per user (struct user_struct, unix_inflight) and
// refuses with ETOOMANYREFS above the sender's RLIMIT_NOFILE; CAP_SYS_RESOURCE and CAP_SYS_ADMIN are exempt.
//
//     CrowdedKernel kernel;          // before anything else of the test: root becomes another user
//     if (!kernel.possible()) return;
//     kernel.crowd();
//     kernel.relieve();
#pragma once

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "ring/fd.h"
#include "ring/local/message.h"

namespace caisson::test {

class CrowdedKernel {
  public:
    CrowdedKernel() : root_(::geteuid() == 0) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        // A user of our own, so that no other program counts. All threads change; the saved id leads back.
        const auto other = static_cast<uid_t>(0x30000000 + ::getpid());
        if (root_ && ::setresuid(other, other, 0) != 0) usable_ = false;
        ::prctl(PR_SET_DUMPABLE, 1);  // or /proc/self/fd is root's
        crowd();
        usable_ = usable_ && crowded();
        relieve();
        if (!usable_) WARN("skipped: this kernel or this user knows no limit of descriptors in sockets");
    }
    ~CrowdedKernel() {
        relieve();
        if (root_ && ::setresuid(0, 0, 0) != 0) std::abort();
        ::prctl(PR_SET_DUMPABLE, 1);
    }
    CrowdedKernel(const CrowdedKernel&) = delete;

    bool possible() const { return usable_; }

    void crowd() {
        const rlimit low{.rlim_cur = most, .rlim_max = before_.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &low);
        const std::array<int, 100> many = [] {
            std::array<int, 100> fds;
            fds.fill(STDERR_FILENO);
            return fds;
        }();
        const auto one = std::as_bytes(std::span("x", 1));
        while (parked_.size() < most) {
            int ends[2];
            if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return;
            parked_.emplace_back(ends[0]), parked_.emplace_back(ends[1]);
            if (local::send(ends[0], one, many) != 0) return;
        }
    }
    void relieve() {
        parked_.clear();
        ::setrlimit(RLIMIT_NOFILE, &before_);
    }
    // One descriptor more is refused.
    static bool crowded() {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return false;
        const Fd a(ends[0]), b(ends[1]);
        const int fd = STDERR_FILENO;
        return local::send(a.get(), std::as_bytes(std::span("x", 1)), {&fd, 1}) == ETOOMANYREFS;
    }

  private:
    static constexpr rlim_t most = 400;  // also of open files of the test
    bool root_, usable_ = true;
    rlimit before_{};
    std::vector<Fd> parked_;
};

}  // namespace caisson::test
