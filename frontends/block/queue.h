// One ring of a block frontend: pieces of requests out, answers in. The ring and its journal only; which piece belongs
// to what is data_path.h's.
//
// Deaths. push() notes the piece and its index, marks it sent, and then writes the request: a successor that finds the
// noted index not produced yet takes the mark back. An answer is accounted for (`answered`) after its piece is marked
// done and before anybody is told; a successor takes the response again that its predecessor had taken and not
// accounted for, and is forgiving about its piece being done already, once.
//
// Threads: the device's.
#pragma once

#include "frontends/block/journal.h"
#include "protocols/block_commands.h"
#include "ring/event_channel.h"
#include "ring/hypervisor.h"
#include "ring/stats.h"

namespace caisson::block::frontend {

// What an answer names: it goes through the backend and comes back.
struct PieceId {
    std::uint32_t tag = 0, piece = 0;

    std::uint64_t wire() const { return std::uint64_t{piece} << 16 | tag; }
    static PieceId of(std::uint64_t wire) {
        // What is not ours becomes a piece that no request has.
        if (wire >> 32 != 0) return {most_tags, pieces_a_request};
        return {static_cast<std::uint32_t>(wire & 0xFFFF), static_cast<std::uint32_t>(wire >> 16)};
    }
    bool valid() const { return tag < most_tags && piece < pieces_a_request; }
    std::uint32_t bit() const { return 1u << piece; }
    bool operator==(const PieceId&) const = default;
};

class Queue {
  public:
    // A ring that the controller initialised, with a journal of zeroes; or a predecessor's. `pieces`: of all requests;
    // takes back a mark that came too early.
    static Result<Queue> open(SharedPages pages, EventChannel channel, QueueJournal& journal,
                              std::span<Pieces, most_tags> pieces, QueueStats& stats);

    bool full() const { return ring_.full(); }
    std::uint32_t outstanding() const { return ring_.outstanding(); }
    std::uint32_t slots() const { return ring_.size(); }

    // Not when full(). The backend sees it at ring_bell().
    void push(PieceId id, Pieces& state, const Native::Request& request) {
        journal_->last_tag = id.tag + 1;
        journal_->last_piece = id.piece;
        std::atomic_signal_fence(std::memory_order_release);
        journal_->last_index = journal_->ring.produced;
        std::atomic_signal_fence(std::memory_order_release);
        state.sent |= id.bit();
        std::atomic_signal_fence(std::memory_order_release);
        ring_.push(request);
    }
    // Publishes what was pushed, and notifies when the backend asked for it.
    void ring_bell() {
        if (!ring_.publish()) return;
        notify();
    }
    void notify() {
        stats_->notifies_sent.add(1);
        (void)channel_.notify();  // false: the backend is gone, which the controller learns from xenstore
    }

    // Takes up to `budget` answers: settle(const Answer&, bool again) -> Status marks the piece done; told() comes when
    // it is accounted for. An error: the backend broke the rules, and the ring is broken from here on.
    template <class Settle, class Told>
    Result<std::uint32_t> drain(std::uint32_t budget, Settle&& settle, Told&& told) {
        const std::uint32_t count =
            TRY(ring_.drain(budget, [&](Untrusted<Native::Response>&& raw, std::uint32_t index) {
                const Status settled = std::move(raw).check([&](const Native::Response& response) -> Status {
                    return settle(parse(response), std::exchange(again_, false));
                });
                if (!settled) [[unlikely]]
                    return ring_.mark_broken(settled.error());
                std::atomic_signal_fence(std::memory_order_release);
                journal_->answered = index + 1;
                std::atomic_signal_fence(std::memory_order_release);
                told();
            }));
        if (ring_.broken()) [[unlikely]]
            return std::unexpected(ring_.fault());
        if (count > 0) stats_->responses.add(count);
        return count;
    }

    Result<bool> arm() { return ring_.arm(); }
    // The next response was settled by a predecessor that died before it was accounted for.
    void expect_again() { again_ = true; }
    bool answers_again() const { return again_; }
    const EventChannel& channel() const { return channel_; }
    QueueStats& stats() { return *stats_; }

  private:
    Queue(SharedPages pages, EventChannel channel, FrontRing<Native> ring, QueueJournal& journal, QueueStats& stats)
        : pages_(std::move(pages)), channel_(std::move(channel)), ring_(ring), journal_(&journal), stats_(&stats) {}

    SharedPages pages_;
    EventChannel channel_;
    FrontRing<Native> ring_;
    QueueJournal* journal_;
    QueueStats* stats_;
    bool again_ = false;  // the next response may have been settled by a predecessor
};

}  // namespace caisson::block::frontend
