// A ring of events in one direction, without answers: the event pages of display, sound and input (xen/io/displif.h,
// sndif.h: in_cons, in_prod, then events at offset 64... each protocol names its own offsets). Every push is notified;
// there are no event words.
//
// The producer never waits: an event that finds the ring full is dropped and counted by the caller. A consumer that
// falls behind by more than the ring has lost events by the protocol's rule; more than size() outstanding is BROKEN.
//
// Threads: one thread a half.
#pragma once

#include <span>

#include "protocols/words.h"
#include "ring/index.h"
#include "ring/memory.h"

namespace caisson {

// `count` events of sizeof(Event) from `events`, and the offsets of the two index words.
struct EventRingLayout {
    std::size_t events = 0;
    std::uint32_t count = 0;
    std::size_t consumer = 0, producer = 0;
};

namespace detail {
template <Wire Event>
class EventHalf {
  public:
    bool broken() const { return broken_; }
    const Error& fault() const { return fault_; }

  protected:
    EventHalf(SharedSpan page, const EventRingLayout& layout, std::uint32_t& index)
        : events_(page.subspan(layout.events, layout.count * sizeof(Event))),
          count_(layout.count),
          consumer_(SharedAccess::base(page) + layout.consumer),
          producer_(SharedAccess::base(page) + layout.producer),
          index_(&index) {}
    // These rings are not powers of two: Xen's headers index them modulo their length.
    std::size_t offset(std::uint32_t index) const { return (index % count_) * sizeof(Event); }
    std::unexpected<Error> break_ring(std::uint64_t got) {
        broken_ = true;
        fault_ = {.fault = Fault::peer,
                  .err = EPROTO,
                  .what = "event ring filled",
                  .wanted = Wanted::at_most,
                  .got = got,
                  .limit = count_};
        return std::unexpected(fault_);
    }

    SharedSpan events_;
    std::uint32_t count_;
    SharedIndex consumer_, producer_;
    std::uint32_t* index_;
    bool broken_ = false;
    Error fault_;
};
}  // namespace detail

template <Wire Event>
class EventProducer : public detail::EventHalf<Event> {
    using Half = detail::EventHalf<Event>;

  public:
    EventProducer(SharedSpan page, const EventRingLayout& layout, std::uint32_t& produced)
        : Half(page, layout, produced) {}

    // False when the ring is full: the event was not written. Notify after a true.
    Result<bool> push(const Event& event) {
        if (this->broken_) return std::unexpected(this->fault_);
        const std::uint32_t filled = *this->index_ - this->consumer_.look();
        if (filled > this->count_) return Half::break_ring(filled);
        if (filled == this->count_) return false;
        this->events_.copy_in(Half::offset(*this->index_), std::as_bytes(std::span(&event, 1)));
        std::atomic_signal_fence(std::memory_order_release);
        this->producer_.publish(++*this->index_);
        return true;
    }
};

template <Wire Event>
class EventConsumer : public detail::EventHalf<Event> {
    using Half = detail::EventHalf<Event>;

  public:
    EventConsumer(SharedSpan page, const EventRingLayout& layout, std::uint32_t& consumed)
        : Half(page, layout, consumed) {}

    // Takes up to `budget` events: fn(Untrusted<Event>&&).
    template <class Fn>
    Result<std::uint32_t> drain(std::uint32_t budget, Fn&& fn) {
        if (this->broken_) return std::unexpected(this->fault_);
        const std::uint32_t filled = this->producer_.look_after_arming() - *this->index_;
        if (filled > this->count_) return Half::break_ring(filled);
        const std::uint32_t taken = std::min(filled, budget);
        for (std::uint32_t i = 0; i < taken; ++i) {
            Event copy{};
            this->events_.copy_out(Half::offset(*this->index_), std::as_writable_bytes(std::span(&copy, 1)));
            ++*this->index_;
            fn(Untrusted<Event>(copy));
        }
        if (taken > 0) this->consumer_.publish(*this->index_);
        return taken;
    }
};

}  // namespace caisson
