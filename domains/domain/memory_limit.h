// A bound on the memory of all processes of a domain and of its folders in memory: a cgroup (version 2) with
// memory.max.
//
// Only where a cgroup that may be written is there: below $CAISSON_CGROUP, a folder that was delegated to this user;
// for root, without that variable, /sys/fs/cgroup/caisson, which is made. Elsewhere set() says why not, and the domain
// lives without the bound. Threads: any.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "protocols/words.h"

namespace caisson::domain {

class MemoryLimit {
  public:
    // For our own part of the domain: PID 1, controllers, workers. `mib` is all the guest's.
    static constexpr std::uint64_t overhead_mib = 64;

    // Before anything of the guest runs: whatever PID 1 starts is in its cgroup.
    static Result<MemoryLimit> set(pid_t init, std::uint64_t mib);
    MemoryLimit(MemoryLimit&& other) noexcept : folder_(std::move(other.folder_)) { other.folder_.clear(); }
    MemoryLimit& operator=(MemoryLimit&&) = delete;
    ~MemoryLimit();  // once the domain is dead

    const std::string& folder() const { return folder_; }

  private:
    explicit MemoryLimit(std::string folder) : folder_(std::move(folder)) {}
    std::string folder_;
};

}  // namespace caisson::domain
