// A ring of bytes in one direction: a half of the console's page (xen/io/console.h) or of a flex ring
// (DEFINE_XEN_FLEX_RING in xen/io/ring.h). The data area is a power of two; indices run freely and wrap at 2^32; the
// peer is notified after every change, since these rings have no event words.
//
// A peer whose index says that more than the ring holds is free or filled makes the ring BROKEN; nothing of it is read
// again.
//
// Restart: the private index may live in a journal. A consumer moves its index before it hands the bytes on, and a
// producer after they are complete, so a byte is delivered at most once wherever the process dies.
//
// Threads: one thread a half.
#pragma once

#include <algorithm>
#include <bit>
#include <span>

#include "protocols/words.h"
#include "ring/index.h"
#include "ring/memory.h"

namespace caisson {

// Where a direction's ring lies: the data area, and the offsets of its two index words in `page`.
struct ByteRingLayout {
    std::size_t data = 0, size = 0;  // size is a power of two
    std::size_t consumer = 0, producer = 0;
};

namespace detail {

class ByteHalf {
  public:
    bool broken() const { return broken_; }
    const Error& fault() const { return fault_; }
    std::size_t size() const { return data_.size(); }

  protected:
    ByteHalf(SharedSpan page, const ByteRingLayout& layout, std::uint32_t& index)
        : data_(page.subspan(layout.data, layout.size)),
          consumer_(SharedAccess::base(page) + layout.consumer),
          producer_(SharedAccess::base(page) + layout.producer),
          index_(&index) {}

    std::unexpected<Error> break_ring(const char* what, std::uint64_t got) {
        broken_ = true;
        fault_ = {
            .fault = Fault::peer, .err = EPROTO, .what = what, .wanted = Wanted::at_most, .got = got, .limit = size()};
        return std::unexpected(fault_);
    }
    std::size_t position(std::uint32_t index) const { return index & (size() - 1); }

    SharedSpan data_;
    SharedIndex consumer_, producer_;
    std::uint32_t* index_;  // ours: the producer's or the consumer's
    bool broken_ = false;
    Error fault_;
};

}  // namespace detail

class ByteProducer : public detail::ByteHalf {
  public:
    // `produced` is the private index: zero for a new ring, the journal's for a successor, who must call publish().
    ByteProducer(SharedSpan page, const ByteRingLayout& layout, std::uint32_t& produced)
        : ByteHalf(page, layout, produced) {}

    // Free space. Looks at the peer's index.
    Result<std::size_t> room() {
        if (broken_) return std::unexpected(fault_);
        const std::uint32_t filled = *index_ - consumer_.look_after_arming();
        if (filled > size()) return break_ring("byte ring filled", filled);
        return size() - filled;
    }
    // Writes what fits, in at most two pieces, and shows it to the peer. Returns how much; notify the peer unless zero.
    Result<std::size_t> write(std::span<const std::byte> from) {
        const std::size_t count = std::min(TRY(room()), from.size());
        const std::size_t first = std::min(count, size() - position(*index_));
        data_.copy_in(position(*index_), from.first(first));
        data_.copy_in(0, from.subspan(first, count - first));
        std::atomic_signal_fence(std::memory_order_release);  // die here: nothing was written
        *index_ += static_cast<std::uint32_t>(count);
        if (count > 0) publish();
        return count;
    }
    void publish() { producer_.publish(*index_); }
};

class ByteConsumer : public detail::ByteHalf {
  public:
    ByteConsumer(SharedSpan page, const ByteRingLayout& layout, std::uint32_t& consumed)
        : ByteHalf(page, layout, consumed) {}

    Result<std::size_t> available() {
        if (broken_) return std::unexpected(fault_);
        const std::uint32_t filled = producer_.look_after_arming() - *index_;
        if (filled > size()) return break_ring("byte ring filled", filled);
        return static_cast<std::size_t>(filled);
    }
    // Copies what is there, up to to.size(), and leaves it in the ring: a second look may find other bytes.
    Result<std::size_t> peek(std::span<std::byte> to) {
        const std::size_t count = std::min(TRY(available()), to.size());
        const std::size_t first = std::min(count, size() - position(*index_));
        data_.copy_out(position(*index_), to.first(first));
        data_.copy_out(0, to.subspan(first, count - first));
        return count;
    }
    // Counts `count` of the bytes that peek() saw as taken, or as not taken after all. The peer learns it at publish().
    void take(std::size_t count) { *index_ += static_cast<std::uint32_t>(count); }
    void put_back(std::size_t count) { *index_ -= static_cast<std::uint32_t>(count); }
    // Takes what is there, up to to.size(), and frees the space. Returns how much; notify the peer unless zero (it may
    // wait for room).
    Result<std::size_t> read(std::span<std::byte> to) {
        const std::size_t count = TRY(peek(to));
        take(count);
        if (count > 0) publish();
        return count;
    }
    void publish() { consumer_.publish(*index_); }
};

}  // namespace caisson
