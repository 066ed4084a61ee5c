// Memory that another domain can change under us.
//
// SharedSpan is all that leaves ring/: it has a size and ways to copy, and no address. Rings read their slots through
// ring/detail/shared_access.h, which only files under ring/ may include (tests/house enforces it).
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstring>
#include <span>

#include "protocols/words.h"

namespace caisson {

namespace detail {
struct SharedAccess;
}

// A view of shared bytes; owns nothing. Copying it is cheap, reading through it twice gives two answers.
class SharedSpan {
  public:
    SharedSpan() = default;

    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

    // An empty span when the range does not fit: never a wrapped or clamped one.
    SharedSpan subspan(std::size_t offset, std::size_t length) const {
        return fits(offset, length, size_) ? SharedSpan(base_ + offset, length) : SharedSpan();
    }

    // One pass over the bytes into private memory. False, and nothing copied, when the range does not fit.
    bool copy_out(std::size_t offset, std::span<std::byte> to) const {
        if (!fits(offset, to.size(), size_)) return false;
        std::memcpy(to.data(), base_ + offset, to.size());
        asm volatile("" ::: "memory");  // whoever reads `to` from here on reads the copy, not the peer's page
        return true;
    }
    bool copy_in(std::size_t offset, std::span<const std::byte> from) const {
        if (!fits(offset, from.size(), size_)) return false;
        std::memcpy(base_ + offset, from.data(), from.size());
        return true;
    }
    // From one peer's pages into another's (or further down the same ones): one copy, and nobody looks at the bytes.
    bool copy_to(SharedSpan to) const {
        if (size_ > to.size_) return false;
        std::memmove(to.base_, base_, size_);
        return true;
    }
    void clear() const { std::memset(base_, 0, size_); }

    // Payload for the kernel: readv, writev, io_uring. Opaque to us: the kernel copies it once, we never look.
    iovec for_kernel() const { return {base_, size_}; }

  private:
    friend struct detail::SharedAccess;
    SharedSpan(std::byte* base, std::size_t size) : base_(base), size_(size) {}

    std::byte* base_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace caisson
