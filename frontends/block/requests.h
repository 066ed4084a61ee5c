// The requests of a disk's users that are not answered: the frontend's in-flight table, with the pages of the arena
// that hold their data. It knows nothing of rings; data_path.h brings its entries there.
//
// Every instruction is a safe place to die. An entry is filled before its state says `taken`; it says `answering`, with
// the error beside it, before anybody is told; it is `free` only afterwards. So a successor that finds
//     taken      issues it, or waits for it where it is on a ring that still exists: reads, writes, flushes and
//     discards
//                may be done twice while their user still waits for the answer;
//     answering  only tells it (again). It must not be issued once more: its user may have been told, and may have
//                written the same sectors anew.
// What is found is untrusted: contradictions make attach() fail.
//
// Threads: the device's.
#pragma once

#include <atomic>
#include <optional>
#include <span>
#include <vector>

#include "frontends/block/journal.h"
#include "frontends/block/page_pool.h"
#include "protocols/block_commands.h"
#include "ring/in_flight.h"

namespace caisson::block::frontend {

class Requests {
  public:
    // What the journal holds, all zero or a predecessor's. `pages`: of the arena.
    static Result<Requests> attach(std::span<Entry, most_tags> entries, std::uint32_t pages);

    struct Wanted {
        Operation operation = Operation::read;
        bool secure = false;
        std::uint64_t offset = 0, length = 0, cookie = 0;
        std::uint16_t skip = 0, trim = 0;
        std::optional<std::uint16_t> buffer = std::nullopt;  // the first page of a Buffer, which holds the data
    };
    // A new entry with pages for the data, not `taken` yet: fill the pages, then commit(). Nothing: no room now.
    std::optional<Tag> prepare(const Wanted& wanted);
    void commit(Tag tag) {
        std::atomic_signal_fence(std::memory_order_release);
        entries_[tag.raw].state = Entry::taken;
        std::atomic_signal_fence(std::memory_order_release);
    }
    // Its end is known; tell its user, then release().
    void finish(Tag tag, int error) {
        Entry& entry = entries_[tag.raw];
        entry.error = error;
        std::atomic_signal_fence(std::memory_order_release);
        entry.state = Entry::answering;
        std::atomic_signal_fence(std::memory_order_release);
    }
    void release(Tag tag);
    void expire(Tag tag) { entries_[tag.raw].state = Entry::expired; }
    // On a new connection: what had expired may be used again.
    void forget_expired();

    const Entry& operator[](Tag tag) const { return entries_[tag.raw]; }
    void note_error(Tag tag, int error) { entries_[tag.raw].error = error; }
    void note_told(Tag tag) {
        entries_[tag.raw].told = 1;
        std::atomic_signal_fence(std::memory_order_release);
    }
    // Those in a state, oldest first.
    std::vector<Tag> in_state(std::uint32_t state) const;
    bool has_cookie(std::uint64_t cookie) const;
    unsigned count() const { return most_tags - static_cast<unsigned>(free_.size()); }
    bool full() const { return free_.empty(); }
    PagePool& pool() { return pool_; }
    const PagePool& pool() const { return pool_; }

    static std::uint32_t pages_of(Operation operation, std::uint64_t length) {
        if (operation == Operation::flush || operation == Operation::discard) return 0;
        return static_cast<std::uint32_t>((length + page_size - 1) / page_size);
    }

  private:
    Requests(std::span<Entry, most_tags> entries, std::uint32_t pages) : entries_(entries), pool_(pages) {
        free_.reserve(most_tags);
    }
    Status claim(const Entry& entry);

    std::span<Entry, most_tags> entries_;
    PagePool pool_;
    std::vector<std::uint16_t> free_;  // tags, LIFO
    std::uint64_t next_sequence_ = 1;
};

}  // namespace caisson::block::frontend
