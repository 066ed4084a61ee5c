// Private memory for requests whose pages cannot be used in place: a bounded pool, in runs of pages.
//
// Its size is the quota of a queue: a request that finds no room waits, in the order of the ring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace caisson::block::backend {

class BouncePool {
  public:
    // At least one request of the largest size has room. Memory is taken from the system as it is touched.
    explicit BouncePool(std::size_t bytes);
    ~BouncePool();
    BouncePool(const BouncePool&) = delete;
    BouncePool& operator=(const BouncePool&) = delete;

    // `bytes` (not 0) of it, starting on a page. Empty: no room now.
    std::span<std::byte> take(std::size_t bytes);
    void give_back(std::span<std::byte> run);

    std::size_t pages_taken() const { return taken_; }
    std::size_t pages() const { return used_.size(); }

  private:
    bool free(std::size_t first, std::size_t count) const;
    std::byte* base_ = nullptr;
    std::vector<bool> used_;  // by page
    std::size_t taken_ = 0, hint_ = 0;
};

}  // namespace caisson::block::backend
