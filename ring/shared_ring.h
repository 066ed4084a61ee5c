// Xen's shared ring of requests and responses, both halves. Layout: xen/io/ring.h, DEFINE_RING_TYPES:
//
//     0 req_prod   4 req_event   8 rsp_prod   12 rsp_event   16 private, 48 bytes   64 slots
//
// A slot holds a request until the backend overwrites it with a response; their number is the largest power of two that
// fits. Indices run freely and wrap at 2^32.
//
// A violation by the peer makes the ring BROKEN: every later call fails with the same error and nothing of the ring is
// read again, until a new object is made for a new connection.
//
// Speed: the peer's index is read only when the private copy of it is used up, and all four indices share a cache line:
// take a batch with drain(), push all answers, then publish() once. arm() only before going to sleep: a ring that is
// polled never writes its event word, and a peer that sees no armed doorbell never notifies.
//
// Restart: the private half of a ring lives in RingIndices (and, for a backend, a snapshot a slot), which may be in a
// journal. The orders of the stores below make every instruction a safe place to die; see attach().
//
// Threads: one thread a half.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <span>

#include "protocols/words.h"
#include "ring/index.h"
#include "ring/memory.h"

namespace caisson {

template <class P>
concept RingProtocol = Wire<typename P::Request> && Wire<typename P::Response>;

inline constexpr std::size_t ring_header_bytes = 64;

template <RingProtocol P>
inline constexpr std::size_t ring_slot_bytes = [] {
    union Slot {  // as __ring_entry: size and alignment of the larger
        typename P::Request request;
        typename P::Response response;
    };
    return sizeof(Slot);
}();

// RING_SIZE of xen/io/ring.h.
template <RingProtocol P>
constexpr std::uint32_t ring_slots(std::size_t ring_bytes) {
    if (ring_bytes < ring_header_bytes + ring_slot_bytes<P>) return 0;
    return static_cast<std::uint32_t>(std::bit_floor((ring_bytes - ring_header_bytes) / ring_slot_bytes<P>));
}

// The private half of a ring. All zero is a fresh ring. May live in a journal: then it is untrusted to the next reader,
// who takes it through attach().
struct RingIndices {
    std::uint32_t consumed = 0;  // next index to take from the peer
    std::uint32_t produced = 0;  // next index of ours to write; everything below is complete in its slot
};

namespace detail {

// What both halves share: where things are, and the fault that broke the ring.
template <RingProtocol P>
class RingHalf {
  public:
    std::uint32_t size() const { return size_; }
    bool broken() const { return broken_; }
    const Error& fault() const { return fault_; }

  protected:
    RingHalf(SharedSpan ring, RingIndices& indices)
        : base_(SharedAccess::base(ring)),
          slots_(base_ + ring_header_bytes),
          size_(ring_slots<P>(ring.size())),
          mask_(size_ - 1),
          indices_(&indices),
          request_producer_(base_),
          request_event_(base_ + 4),
          response_producer_(base_ + 8),
          response_event_(base_ + 12) {}

    std::byte* slot(std::uint32_t index) const { return slots_ + (index & mask_) * ring_slot_bytes<P>; }

    // The only read of a slot: as a whole, into private memory, once. The barrier is what makes it once: nothing that
    // is read from shared memory before it may be read again, or only then, after it (XSA-155, XSA-197); and unlike a
    // volatile copy it leaves the fields in registers.
    template <Wire T>
    static T read_once(const std::byte* from) {
        T copy;
        std::memcpy(&copy, from, sizeof copy);
#ifndef CAISSON_RING_UNCHECKED_FOR_MEASUREMENT
        asm volatile("" ::: "memory");
#endif
        return copy;
    }
    std::unexpected<Error> break_ring(const char* what, std::uint64_t got, std::uint64_t limit) {
        broken_ = true;
        fault_ = {
            .fault = Fault::peer, .err = EPROTO, .what = what, .wanted = Wanted::at_most, .got = got, .limit = limit};
        return std::unexpected(fault_);
    }

    std::byte* base_;
    std::byte* slots_;
    std::uint32_t size_, mask_;
    RingIndices* indices_;
    std::uint32_t peer_ = 0;       // private copy of the peer's producer index
    std::uint32_t published_ = 0;  // what of `produced` the peer has been shown
    SharedIndex request_producer_, request_event_, response_producer_, response_event_;
    bool broken_ = false;
    Error fault_;
};

// Xen's rule (RING_PUSH_*_AND_CHECK_NOTIFY): the peer armed its doorbell within what was published now.
constexpr bool doorbell_passed(std::uint32_t event, std::uint32_t before, std::uint32_t now) {
    return now - event < now - before;
}

}  // namespace detail

template <RingProtocol P>
class BackRing : public detail::RingHalf<P> {
    using Half = detail::RingHalf<P>;
    using Half::indices_, Half::peer_, Half::published_, Half::size_, Half::broken_, Half::fault_;

  public:
    using Request = typename P::Request;
    using Response = typename P::Response;

    // A ring that a frontend has just initialised, or one taken over live. `snapshots` (empty, or size() of them) keeps
    // a private copy of each request until its slot is taken again: what a successor needs to answer in order.
    BackRing(SharedSpan ring, RingIndices& indices, std::span<Request> snapshots = {})
        : Half(ring, indices), snapshots_(snapshots.size() < size_ ? std::span<Request>() : snapshots) {
        peer_ = indices.consumed;
        published_ = indices.produced;
    }

    // Continues where a predecessor died: never initialises anything. `indices` is what it left, and believed only
    // within reason; requests in [produced, consumed) were taken and not answered (unanswered()). Shows the frontend
    // whatever was complete but not published; the caller notifies once, in case a notify was lost.
    static Result<BackRing> attach(SharedSpan ring, RingIndices& indices, std::span<Request> snapshots = {}) {
        BackRing half(ring, indices, snapshots);
        if (indices.consumed - indices.produced > half.size_)
            return half.break_ring("journal: requests unanswered", indices.consumed - indices.produced, half.size_);
        half.response_producer_.publish(indices.produced);
        return half;
    }

    // A stock frontend's ring, met live and without a journal (a backend that has just been started anew on a connected
    // device): requests the predecessor may have taken count as not taken.
    static BackRing attach_at_live_indices(SharedSpan ring, RingIndices& indices, std::span<Request> snapshots = {}) {
        BackRing probe(ring, indices, snapshots);
        indices.produced = indices.consumed = probe.response_producer_.look();
        return BackRing(ring, indices, snapshots);
    }

    std::uint32_t unanswered() const { return indices_->consumed - indices_->produced; }
    // A request taken before, by index in [produced, consumed), from the snapshots.
    Untrusted<Request> snapshot(std::uint32_t index) const {
        return Untrusted<Request>(snapshots_[index & (size_ - 1)]);
    }
    std::uint32_t first_unanswered() const { return indices_->produced; }

    // How many requests can be taken now; looks at the shared index only when none is known.
    Result<std::uint32_t> available() {
        if (broken_) return std::unexpected(fault_);
        if (peer_ == indices_->consumed) {
            __builtin_prefetch(Half::slot(peer_));  // with the index, not after it: one miss instead of two
            TRY(see(this->request_producer_.look()));
        }
        return peer_ - indices_->consumed;
    }

    // The index of the next push().
    std::uint32_t next_response() const { return indices_->produced; }

    // Takes up to `budget` requests, oldest first: fn(Untrusted<Request>&&, std::uint32_t index). Does not arm.
    template <class Fn>
    Result<std::uint32_t> drain(std::uint32_t budget, Fn&& fn) {
        return drain(budget, std::forward<Fn>(fn), [](const Request&, std::uint32_t) {});
    }
    // For ring/in_flight.h: keep(const Request&, index) is called before the request counts as taken.
    template <class Fn, class Keep>
    Result<std::uint32_t> drain(std::uint32_t budget, Fn&& fn, Keep&& keep) {
        const std::uint32_t count = std::min(TRY(available()), budget);
        std::uint32_t index = indices_->consumed;
        const auto slot_of = [slots = this->slots_, mask = this->mask_](std::uint32_t i) {  // in registers for the loop
            return slots + (i & mask) * ring_slot_bytes<P>;
        };
        for (const std::uint32_t end = index + count; index != end && !broken_; ++index) {
            const auto copy = Half::template read_once<Request>(slot_of(index));
            if (!snapshots_.empty()) snapshots_[index & (size_ - 1)] = copy;
            keep(copy, index);
            std::atomic_signal_fence(std::memory_order_release);  // die here: the request counts as not taken
            indices_->consumed = index + 1;
            fn(Untrusted<Request>(copy), index);
        }
        return count;
    }

    // Writes the next response; the frontend sees it at publish(). There is always room: a response takes the slot of a
    // request that was taken. (Asked of us, not of the peer: pushing more is a bug.)
    void push(const Response& response) {
        new (Half::slot(indices_->produced)) Response(response);
        std::atomic_signal_fence(std::memory_order_release);  // die here: the response counts as not given
        indices_->produced += 1;
    }

    // Shows the frontend all responses pushed so far. True when it asked to be notified.
    [[nodiscard]] bool publish() {
        const std::uint32_t before = published_, now = indices_->produced;
        if (before == now) return false;
        published_ = now;
        this->response_producer_.publish(now);
        return detail::doorbell_passed(this->response_event_.doorbell(), before, now);
    }

    // "Wake me at the next request", then one more look: true when there is work already.
    // RING_FINAL_CHECK_FOR_REQUESTS.
    Result<bool> arm() {
        if (broken_) return std::unexpected(fault_);
        this->request_event_.arm(indices_->consumed + 1);
        TRY(see(this->request_producer_.look_after_arming()));
        return peer_ != indices_->consumed;
    }

    // The protocol above the slots was broken: same end as a broken index.
    void mark_broken(Error fault) { broken_ = true, fault_ = std::move(fault); }

  private:
    // The frontend may have at most size() requests that are not answered (RING_REQUEST_PROD_OVERFLOW), and its index
    // never goes back.
    Status see(std::uint32_t producer) {
#ifndef CAISSON_RING_UNCHECKED_FOR_MEASUREMENT  // tests/bench/ring_unchecked.cpp: what safety costs
        const std::uint32_t room = size_ - (indices_->consumed - indices_->produced);
        if (producer - indices_->consumed > room)
            return Half::break_ring("request producer index ahead by", producer - indices_->consumed, room);
#endif
        peer_ = producer;
        return {};
    }

    std::span<Request> snapshots_;
};

template <RingProtocol P>
class FrontRing : public detail::RingHalf<P> {
    using Half = detail::RingHalf<P>;
    using Half::indices_, Half::peer_, Half::published_, Half::size_, Half::broken_, Half::fault_;

  public:
    using Request = typename P::Request;
    using Response = typename P::Response;

    // A new ring: SHARED_RING_INIT on zeroed pages.
    static FrontRing initialise(SharedSpan ring, RingIndices& indices) {
        ring.clear();
        indices = {};
        FrontRing half(ring, indices);
        half.request_event_.publish_quietly(1);
        half.response_event_.publish_quietly(1);
        return half;
    }

    // Continues where a predecessor died: responses in [consumed, the backend's index) are still to be taken, requests
    // that were complete but not published are published now. The caller notifies once.
    static Result<FrontRing> attach(SharedSpan ring, RingIndices& indices) {
        FrontRing half(ring, indices);
        if (indices.produced - indices.consumed > half.size_)
            return half.break_ring("journal: requests outstanding", indices.produced - indices.consumed, half.size_);
        half.request_producer_.publish(indices.produced);
        return half;
    }

    std::uint32_t outstanding() const { return indices_->produced - indices_->consumed; }
    std::uint32_t free() const { return size_ - outstanding(); }
    bool full() const { return free() == 0; }

    // Writes the next request; the backend sees it at publish(). Not when full(): that is a bug of ours.
    void push(const Request& request) {
        new (Half::slot(indices_->produced)) Request(request);
        std::atomic_signal_fence(std::memory_order_release);
        indices_->produced += 1;
    }

    [[nodiscard]] bool publish() {
        const std::uint32_t before = published_, now = indices_->produced;
        if (before == now) return false;
        published_ = now;
        this->request_producer_.publish(now);
        return detail::doorbell_passed(this->request_event_.doorbell(), before, now);
    }

    Result<std::uint32_t> available() {
        if (broken_) return std::unexpected(fault_);
        if (peer_ == indices_->consumed) {
            __builtin_prefetch(Half::slot(peer_));  // with the index, not after it: one miss instead of two
            TRY(see(this->response_producer_.look()));
        }
        return peer_ - indices_->consumed;
    }

    // Takes up to `budget` responses: fn(Untrusted<Response>&&, std::uint32_t index). What a response names must match
    // something outstanding, once: that table is the class's.
    template <class Fn>
    Result<std::uint32_t> drain(std::uint32_t budget, Fn&& fn) {
        const std::uint32_t count = std::min(TRY(available()), budget);
        std::uint32_t index = indices_->consumed;
        const auto slot_of = [slots = this->slots_, mask = this->mask_](std::uint32_t i) {  // in registers for the loop
            return slots + (i & mask) * ring_slot_bytes<P>;
        };
        for (const std::uint32_t end = index + count; index != end && !broken_; ++index) {
            const auto copy = Half::template read_once<Response>(slot_of(index));
            std::atomic_signal_fence(std::memory_order_release);
            indices_->consumed = index + 1;
            fn(Untrusted<Response>(copy), index);
        }
        return count;
    }

    // RING_FINAL_CHECK_FOR_RESPONSES; `ahead`: only once so many responses are there (at least 1, at most
    // outstanding()), for whoever has no use for a single one.
    Result<bool> arm(std::uint32_t ahead = 1) {
        if (broken_) return std::unexpected(fault_);
        this->response_event_.arm(indices_->consumed + ahead);
        TRY(see(this->response_producer_.look_after_arming()));
        return peer_ - indices_->consumed >= ahead;
    }

    void mark_broken(Error fault) { broken_ = true, fault_ = std::move(fault); }

  private:
    FrontRing(SharedSpan ring, RingIndices& indices) : Half(ring, indices) {
        peer_ = indices.consumed;
        published_ = indices.produced;
    }
    // Tighter than RING_RESPONSE_PROD_OVERFLOW, which lets a full ring of forged responses through: there can be no
    // more responses than requests outstanding.
    Status see(std::uint32_t producer) {
#ifndef CAISSON_RING_UNCHECKED_FOR_MEASUREMENT
        if (producer - indices_->consumed > outstanding())
            return Half::break_ring("response producer index ahead by", producer - indices_->consumed, outstanding());
#endif
        peer_ = producer;
        return {};
    }
};

}  // namespace caisson
