// The data path of one connection: requests from the table onto the rings, answers back.
//
// Every request is bounced through the arena, pages that hold nothing but this disk's data and are granted once for the
// length of a connection (XSA-403): a backend with feature-persistent keeps them mapped. A request that has more pages
// than the backend takes goes in pieces. A tag's pieces all go to one queue: tag modulo queues.
//
// An answer must match a piece that is outstanding on that ring, once, with its operation; anything else breaks the
// device until it reconnects (XSA-155, XSA-376). A request that is not answered in time fails upward (ETIMEDOUT), and
// its tag and pages are out of use until then.
//
// A new connection starts with what the table holds: everything unanswered is issued again, oldest first, once the
// backend has said what the disk is.
//
// Threads: the device's. No allocation on the path.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <bitset>
#include <memory>

#include "frontends/block/queue.h"
#include "frontends/block/requests.h"

namespace caisson::block::frontend {

class DataPath {
  public:
    struct QueueParts {
        SharedPages ring;
        EventChannel channel;
    };
    struct Parts {
        Requests& requests;
        ConnectionJournal& journal;
        DeviceStats& stats;
        SharedPages arena, descriptors;
        std::vector<QueueParts> queues;
        unsigned patience = 30;  // ticks that a request may stay unanswered
    };
    static Result<std::unique_ptr<DataPath>> open(Parts parts);

    // The backend is Connected, and this is the disk; or it has another size now. The first time starts everything. An
    // error as of poll(): sectors of another size.
    Status know(const Features& features);
    bool ready() const { return ready_; }
    const Geometry& geometry() const { return features_.geometry; }
    unsigned queues() const { return static_cast<unsigned>(queues_.size()); }
    const EventChannel& channel(unsigned queue) const { return queues_[queue].channel(); }
    Requests& requests() { return requests_; }

    // 0, or the errno value that a request would end with: EINVAL (not on sectors, or too long), EIO (outside of the
    // disk), EROFS, EOPNOTSUPP.
    int check(Operation operation, bool secure, std::uint64_t offset, std::uint64_t length) const;

    // Bytes that one request may have.
    std::uint64_t largest() const { return std::min(pages_a_request, requests_.pool().size()) * page_size; }

    // A request that check() liked. `source`: what a write writes, copied now, `length` bytes of it; empty for a
    // Buffer. Nothing: no room, ask again after an answer. The backend sees it at ring_bells().
    std::optional<Tag> submit(const Requests::Wanted& wanted, std::span<const iovec> source);
    // What check() did not like, or is no request of a disk: ends with `error` as others do. False: no room.
    bool refuse(std::uint64_t cookie, int error);
    // In done(): whoever asked cannot be told now. The request and its data stay until told().
    void hold(Tag tag) { held_.set(tag.raw); }
    void told(Tag tag);
    void ring_bells() {
        for (Queue& queue : queues_) queue.ring_bell();
    }
    // After open(), once: a predecessor may have died before it said so.
    void notify_all() {
        for (Queue& queue : queues_) queue.notify();
    }

    // Takes up to `budget` answers of one queue, and sends what waited for room: done(Tag, cookie, error) for each
    // request that ended. In it the data may be read; after it the tag is gone. It may submit(). An error: the backend
    // broke the rules, and nothing here may be called any more.
    template <class Done>
    Result<unsigned> poll(unsigned queue, unsigned budget, Done&& done) {
        unsigned ended = ended_.empty() ? 0 : tell_ended(done);
        Queue& ring = queues_[queue];
        std::optional<Tag> complete;
        const std::uint32_t answers = TRY(ring.drain(
            budget,
            [&](const Answer& answer, bool again) {
                complete.reset();
                return settle(queue, answer, again, complete);
            },
            [&] {
                if (complete) end(*complete, done), ++ended;
            }));
        if (answers > 0) issue_waiting();
        ring.ring_bell();
        return ended + answers;
    }
    // "Wake me at the next answer": true when there is something to poll() already.
    Result<bool> arm(unsigned queue) {
        if (!ended_.empty()) return true;
        return queues_[queue].arm();
    }
    // Once a second: gives up on what the backend does not answer.
    void tick();

    // ---- Data of a request: before it is issued, or in done() ----
    void copy_in(Tag tag, std::span<const iovec> from) const;
    void copy_out(Tag tag, std::size_t skip, std::span<const iovec> to) const;
    // Its bytes [skip, skip + length) for the kernel; returns how many entries of `out` are used.
    std::size_t for_kernel(Tag tag, std::size_t skip, std::size_t length, std::span<iovec> out) const;
    // `pages` neighbours from `first`: a Buffer's bytes.
    SharedSpan memory(std::uint16_t first, std::uint32_t pages) const {
        return arena_.memory().subspan(std::size_t{first} * page_size, std::size_t{pages} * page_size);
    }

  private:
    // Tags that wait for room in their ring; the oldest first.
    class Waiting {
      public:
        bool any() const { return count_ != 0; }
        Tag front() const { return Tag(tags_[first_ % most_tags]); }
        void pop() { ++first_, --count_; }
        void push(Tag tag) { tags_[(first_ + count_++) % most_tags] = static_cast<std::uint16_t>(tag.raw); }

      private:
        std::array<std::uint16_t, most_tags> tags_{};
        unsigned first_ = 0, count_ = 0;
    };

    explicit DataPath(Parts& parts);
    Status attach();
    Status check_outstanding();
    bool believable() const;
    Status settle_again();
    void sort_out();
    unsigned queue_of(Tag tag) const { return tag.raw % static_cast<unsigned>(queues_.size()); }
    std::uint32_t piece_count(const Entry& entry) const;
    std::uint32_t all_pieces(const Entry& entry) const { return (1u << piece_count(entry)) - 1; }
    bool issue(Tag tag);
    bool issue_piece(Tag tag, PieceId id);
    void issue_waiting();  // of any queue: they share the pages of segments
    bool push_data(Tag tag, PieceId id);
    std::optional<unsigned> take_descriptor(PieceId id);
    void give_back_descriptor(PieceId id);
    SharedSpan page(std::uint16_t number) const {
        return arena_.memory().subspan(std::size_t{number} * page_size, page_size);
    }
    Status settle(unsigned queue, const Answer& answer, bool again, std::optional<Tag>& complete);
    void end_later(Tag tag, int error);

    template <class Done>
    void end(Tag tag, Done&& done) {
        const Entry& entry = requests_[tag];
        requests_.finish(tag, entry.error);
        done(tag, entry.cookie, static_cast<int>(entry.error));
        if (!held_.test(tag.raw)) requests_.release(tag);
    }
    // Those whose end no ring tells.
    template <class Done>
    unsigned tell_ended(Done&& done) {
        telling_.swap(ended_);
        for (const Tag tag : telling_) {
            const Entry& entry = requests_[tag];
            done(tag, entry.cookie, static_cast<int>(entry.error));
            if (entry.state == Entry::answering && !held_.test(tag.raw)) requests_.release(tag);
        }
        const auto count = static_cast<unsigned>(telling_.size());
        telling_.clear();
        return count;
    }

    Requests& requests_;
    ConnectionJournal& journal_;
    SharedPages arena_, descriptors_;
    std::vector<Queue> queues_;
    Features features_;
    bool ready_ = false;
    std::array<Waiting, max_queues> waiting_;
    std::vector<Tag> ended_, telling_;  // at most most_tags
    std::bitset<most_tags> held_;
    unsigned patience_, now_ = 0;
    std::array<std::uint32_t, most_tags> since_{};  // ticks
};

}  // namespace caisson::block::frontend
