// What one domain grants to one peer, as the peer can see it without asking: a word a reference, written by the broker
// only (ring/local/wire.h). The peer checks it at every copy, so a copy after end() fails.
//
// One page for each (granter, peer): nobody sees what is granted to others.
#pragma once

#include "domains/hypervisor/descriptors.h"

namespace caisson::hypervisor {

class StatusPage {
  public:
    static Result<StatusPage> make(std::uint32_t entries);
    StatusPage(StatusPage&& other) noexcept
        : memory_(std::move(other.memory_)),
          words_(std::exchange(other.words_, nullptr)),
          entries_(std::exchange(other.entries_, 0)) {}
    StatusPage& operator=(StatusPage&&) = delete;
    ~StatusPage();  // all references of it are ended: who still has it mapped reads 0

    void set(std::uint32_t first, std::uint32_t count, std::uint32_t word);
    std::uint32_t entries() const { return entries_; }
    int descriptor() const { return memory_.get(); }  // to be reopened read-only

  private:
    StatusPage(Fd memory, std::uint32_t* words, std::uint32_t entries)
        : memory_(std::move(memory)), words_(words), entries_(entries) {}
    Fd memory_;
    std::uint32_t* words_;
    std::uint32_t entries_;
};

}  // namespace caisson::hypervisor
