// An index word of a shared ring. The only atomics of the project are here; each ordering names the access that it
// pairs with. The doorbell (essay and model: tests/models/README.md) is the pair
//
//     producer: publish(prod); then doorbell()      consumer: arm(event); then look(prod)
//
// and both sides need store-then-load order, which only seq_cst gives: with acquire and release alone both may read the
// old value, and the wake-up is lost.
#pragma once

#include <atomic>
#include <cstdint>

#include "ring/detail/shared_access.h"

namespace caisson::detail {

class SharedIndex {
  public:
    SharedIndex() = default;
    explicit SharedIndex(std::byte* at) : word_(reinterpret_cast<std::uint32_t*>(at)) {}

    // Pairs with publish() of the other side: what it wrote into slots before is visible afterwards.
    std::uint32_t look() const { return ref().load(std::memory_order_acquire); }
    // Pairs with look(), or with look_after_arming(), of the other side.
    void publish(std::uint32_t value) const { ref().store(value, std::memory_order_seq_cst); }
    // Only for words that nobody needs to be woken for: pairs with look().
    void publish_quietly(std::uint32_t value) const { ref().store(value, std::memory_order_release); }

    // The event word: "notify me when your index passes this". Followed by look_after_arming() of the index.
    void arm(std::uint32_t value) const { ref().store(value, std::memory_order_seq_cst); }
    // After arm(): pairs with publish() followed by doorbell().
    std::uint32_t look_after_arming() const { return ref().load(std::memory_order_seq_cst); }
    // After publish(): where the other side armed its doorbell. Pairs with arm().
    std::uint32_t doorbell() const { return ref().load(std::memory_order_seq_cst); }

  private:
    std::atomic_ref<std::uint32_t> ref() const { return std::atomic_ref(*word_); }
    std::uint32_t* word_ = nullptr;
};

}  // namespace caisson::detail
