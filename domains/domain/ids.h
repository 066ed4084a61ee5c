// User ids of the machine for a domain that root makes: 65536 that no other living domain has, whatever state directory
// either belongs to.
//
// A range is claimed by a lock on one byte of a file of the whole machine; whoever looks after the domain holds it. A
// domain that outlived its keeper has no lock any more, so a range in which a process runs is not given out either.
// Threads: any.
#pragma once

#include <cstdint>
#include <string>

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::domain {

class IdRange {
  public:
    static constexpr std::uint64_t ids = 65536;
    static constexpr const char* machines_file = "/run/caisson-ids";

    // The first free one from `start` on, which is any number; numbers of one's own choice are searched the shortest.
    static Result<IdRange> claim(std::uint64_t start, const std::string& file = machines_file);
    std::uint64_t first() const { return first_; }

  private:
    IdRange(Fd lock, std::uint64_t first) : lock_(std::move(lock)), first_(first) {}
    Fd lock_;  // the lock lasts as long as this
    std::uint64_t first_;
};

}  // namespace caisson::domain
