// Requests that a backend has taken and not answered yet, where answers come in any order: the in-flight journal.
//
// A slot of the ring is free for the frontend's next request as soon as *some* response was put into it, so a request
// that takes long cannot be found in the ring any more. It is kept here, in private memory that survives the worker.
//
// Every instruction is a safe place to die. An entry is filled before the ring's `consumed` passes its request, and
// tells where its response goes before the ring's `produced` passes it; so a successor knows of each entry whether its
// request was taken and whether it was answered. What it finds is untrusted (the predecessor may have been taken over):
// contradictions make attach() fail, and the requests are parsed again.
//
// Order: unanswered() lists by age. Threads: one.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "protocols/words.h"
#include "ring/shared_ring.h"

namespace caisson {

// One taken request; what a class calls it while it works on it.
using Tag = Id<struct InFlightTag, std::uint32_t>;

// In the journal. All zero: free.
template <Wire Request>
struct InFlightEntry {
    enum : std::uint32_t { free = 0, taken = 1, answering = 2 };
    std::uint32_t state = free;
    std::uint32_t index = 0;     // of the request in the ring
    std::uint32_t response = 0;  // answering: the index of its response
    std::uint32_t unused = 0;
    Request request;
};

template <RingProtocol P>
class InFlight {
  public:
    using Request = typename P::Request;
    using Entry = InFlightEntry<Request>;

    // `entries`: as many as the ring has slots. Fresh: what was in there is forgotten.
    InFlight(std::span<Entry> entries) : entries_(entries) {
        for (Entry& entry : entries_) entry.state = Entry::free;
        refill();
    }
    // A predecessor's. `indices`: its ring's, already believed by BackRing::attach().
    static Result<InFlight> attach(std::span<Entry> entries, const RingIndices& indices) {
        InFlight table(entries, indices);
        const std::uint32_t expected = indices.consumed - indices.produced;
        if (table.replay_.size() != expected)
            return peer_fault("journal: requests in flight", table.replay_.size(), Wanted::exactly, expected);
        return table;
    }

    // After attach(): what has to be done (again), oldest first.
    std::span<const Tag> unanswered() const { return replay_; }
    Untrusted<Request> request(Tag tag) const { return Untrusted<Request>(entries_[tag.raw].request); }

    std::uint32_t size() const { return static_cast<std::uint32_t>(entries_.size()); }
    std::uint32_t count() const { return size() - static_cast<std::uint32_t>(free_.size()); }

    // Takes up to `budget` requests from the ring: fn(Untrusted<Request>&&, Tag).
    template <class Fn>
    Result<std::uint32_t> drain(BackRing<P>& ring, std::uint32_t budget, Fn&& fn) {
        Tag tag;
        return ring.drain(
            budget, [&](Untrusted<Request>&& request, std::uint32_t) { std::forward<Fn>(fn)(std::move(request), tag); },
            [&](const Request& request, std::uint32_t index) {
                tag = free_.back();  // there is one: the ring never has more requests unanswered than slots
                free_.pop_back();
                Entry& entry = entries_[tag.raw];
                entry.request = request;
                entry.index = index;
                std::atomic_signal_fence(std::memory_order_release);
                entry.state = Entry::taken;
                std::atomic_signal_fence(std::memory_order_release);
            });
    }

    // Puts the answer into the ring; the frontend sees it at the ring's publish().
    void answer(BackRing<P>& ring, Tag tag, const typename P::Response& response) {
        Entry& entry = entries_[tag.raw];
        entry.response = ring.next_response();
        std::atomic_signal_fence(std::memory_order_release);
        entry.state = Entry::answering;
        std::atomic_signal_fence(std::memory_order_release);
        ring.push(response);
        std::atomic_signal_fence(std::memory_order_release);
        entry.state = Entry::free;
        free_.push_back(tag);
    }

  private:
    InFlight(std::span<Entry> entries, const RingIndices& indices) : entries_(entries) {
        for (std::uint32_t i = 0; i < size(); ++i) {
            Entry& entry = entries_[i];
            if (unanswered(entry, indices))
                replay_.push_back(Tag(i)), entry.state = Entry::taken;
            else
                entry.state = Entry::free;
        }
        std::ranges::sort(replay_, {}, [&](Tag tag) { return entries_[tag.raw].index - oldest(indices); });
        refill();
    }
    // Of size() requests in a row, the oldest that may be in flight.
    std::uint32_t oldest(const RingIndices& indices) const { return indices.consumed - reach; }
    bool unanswered(const Entry& entry, const RingIndices& indices) const {
        if (entry.state != Entry::taken && entry.state != Entry::answering) return false;
        // The predecessor died before it took the request: it is still in the ring.
        if (indices.consumed - entry.index - 1 >= reach) return false;
        // It died after its response was complete: then this is one of the latest.
        return entry.state == Entry::taken || indices.produced - entry.response - 1 >= size();
    }
    void refill() {
        free_.clear();
        for (std::uint32_t i = size(); i-- > 0;)
            if (entries_[i].state == Entry::free) free_.push_back(Tag(i));
    }

    // How long a request may stay unanswered, counted in requests that came after it: far less than 2^32.
    static constexpr std::uint32_t reach = 1u << 31;

    std::span<Entry> entries_;
    std::vector<Tag> free_, replay_;
};

}  // namespace caisson
