// New descriptions of files that the broker has open, without a path: through /proc/self/fd, held open since the start.
//
// A descriptor that is sent over a socket shares its open file description: whoever has it can clear O_NONBLOCK for
// all. So nothing is sent that the broker itself reads or writes, and no two domains share a description.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ring/fd.h"

namespace caisson::hypervisor {

class OwnDescriptors {
  public:
    // In the process that will use it: /proc/self is resolved here.
    static Result<OwnDescriptors> open();

    // The same file with another access mode. O_NONBLOCK and O_CLOEXEC are added.
    Result<Fd> reopen(int fd, int access_mode) const;

  private:
    explicit OwnDescriptors(Fd directory) : directory_(std::move(directory)) {}
    Fd directory_;
};

// A zeroed memfd whose size is sealed, its pages allocated: nobody gets SIGBUS from it. More seals can still be added.
Result<Fd> sealed_memory(const char* name, std::size_t bytes);
// The last seals. After forbid_writing nobody gets a new writable mapping or writes through any descriptor, whatever
// the way it is reopened; mappings that exist stay writable.
enum class Writing : std::uint8_t { allowed, forbidden_from_now };
Status seal_for_good(int fd, Writing writing);

}  // namespace caisson::hypervisor
