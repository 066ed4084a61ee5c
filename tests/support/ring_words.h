// A shared ring as its bytes, for a peer without manners: any slot, any index, in any order. What LyingRing and
// BlockRing (frontends) and RawRing (a backend; raw_ring.h) are made of.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ring/memory.h"
#include "ring/shared_ring.h"

namespace caisson::test {

template <class P>
class RingWords {
  public:
    explicit RingWords(SharedSpan pages) : page_(pages) {}
    SharedSpan page() const { return page_; }

    std::uint32_t request_producer() const { return word(0); }
    std::uint32_t request_event() const { return word(4); }
    std::uint32_t response_producer() const { return word(8); }
    std::uint32_t response_event() const { return word(12); }

  protected:
    void put_request_producer(std::uint32_t value) { put_word(0, value); }
    void put_request_event(std::uint32_t value) { put_word(4, value); }
    void put_response_producer(std::uint32_t value) { put_word(8, value); }
    void put_response_event(std::uint32_t value) { put_word(12, value); }

    template <class T>
    T slot(std::uint32_t index) const {
        T out{};
        (void)page_.copy_out(at(index), std::as_writable_bytes(std::span(&out, 1)));
        return out;
    }
    template <class T>
    void put_slot(std::uint32_t index, const T& value) {
        (void)page_.copy_in(at(index), std::as_bytes(std::span(&value, 1)));
    }

  private:
    std::size_t at(std::uint32_t index) const {
        return ring_header_bytes + index % ring_slots<P>(page_.size()) * ring_slot_bytes<P>;
    }
    std::uint32_t word(std::size_t offset) const {
        std::uint32_t value = 0;
        (void)page_.copy_out(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    void put_word(std::size_t offset, std::uint32_t value) {
        (void)page_.copy_in(offset, std::as_bytes(std::span(&value, 1)));
    }
    SharedSpan page_;
};

}  // namespace caisson::test
