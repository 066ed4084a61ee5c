#include "backends/block/bounce.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "protocols/block.h"

namespace caisson::block::backend {

namespace {
std::size_t pages_of(std::size_t bytes) { return (bytes + page_size - 1) / page_size; }
}  // namespace

BouncePool::BouncePool(std::size_t bytes) : used_(pages_of(std::max<std::size_t>(bytes, max_request_bytes))) {
    void* base = ::mmap(nullptr, used_.size() * page_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(base);
}

BouncePool::~BouncePool() { ::munmap(base_, used_.size() * page_size); }

bool BouncePool::free(std::size_t first, std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i)
        if (used_[first + i]) return false;
    return true;
}

// What was given back last is warm: the search starts there, and goes around once.
std::span<std::byte> BouncePool::take(std::size_t bytes) {
    const std::size_t count = pages_of(bytes), all = used_.size();
    if (count == 0 || count > all - taken_) return {};
    for (std::size_t tried = 0, at = hint_; tried < all; ++tried, ++at) {
        if (at + count > all) {
            tried += all - at;
            at = 0;
        }
        if (!free(at, count)) continue;
        std::fill_n(used_.begin() + static_cast<std::ptrdiff_t>(at), count, true);
        taken_ += count;
        hint_ = at + count;
        return {base_ + at * page_size, bytes};
    }
    return {};
}

void BouncePool::give_back(std::span<std::byte> run) {
    const std::size_t first = static_cast<std::size_t>(run.data() - base_) / page_size, count = pages_of(run.size());
    std::fill_n(used_.begin() + static_cast<std::ptrdiff_t>(first), count, false);
    taken_ -= count;
    hint_ = first;
}

}  // namespace caisson::block::backend
