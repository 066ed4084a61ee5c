// One request between its start and its answer.
#pragma once

#include <chrono>
#include <vector>

#include "backends/block/host.h"

namespace caisson::block::backend {

struct Job {
    // What is still to be done, lowest bit first: a barrier is all three, a flush with data the first two.
    enum Step : std::uint8_t { flush_before = 1, transfer = 2, flush_after = 4 };

    Ticket ticket;
    Operation operation = Operation::read;
    std::uint8_t steps = 0;
    bool secure = false;
    int error = 0;  // the first one wins (XSA-365)
    std::uint64_t offset = 0, length = 0;
    std::chrono::steady_clock::time_point taken{};

    // Where its bytes are. Bounced: `run`; else places of the grant cache, one an extent. Kept from request to request,
    // so that nothing is allocated after a while.
    std::span<std::byte> run;
    std::vector<std::uint32_t> places;
    std::vector<Extent> extents;

    bool writes() const { return operation != Operation::read && operation != Operation::discard; }
    // The step to do now; 0: none.
    std::uint8_t step() const { return static_cast<std::uint8_t>(steps & -steps); }
};

// A first-in, first-out list of tags that never grows: there are no more requests than slots.
class Line {
  public:
    explicit Line(std::uint32_t most) : tags_(most) {}
    bool empty() const { return count_ == 0; }
    std::uint32_t size() const { return count_; }
    Tag front() const { return tags_[first_]; }
    void push(Tag tag) { tags_[(first_ + count_++) % tags_.size()] = tag; }
    void pop() { first_ = (first_ + 1) % static_cast<std::uint32_t>(tags_.size()), --count_; }
    void clear() { count_ = 0; }

  private:
    std::vector<Tag> tags_;
    std::uint32_t first_ = 0, count_ = 0;
};

}  // namespace caisson::block::backend
