// What survives a killed worker: output that waits for a reader, and how far everything has got.
//
// The guest's output goes from the ring to two places. Every step of it ends in commit(): one store switches between
// two copies of Progress, so whatever instruction the death falls on, the successor finds the state before the step or
// the state after it, never a mixture. Before the store the bytes are still in the ring (the shared index moves later),
// and what was written to the log is written again at the same place; after it, they are in the log and in the queue.
// So the log has every byte once.
//
// Towards the reader `queue_begin` moves before the bytes are handed over (put_back() moves it back for what was not
// accepted): at most once.
//
// Private to this domain, but untrusted to the next worker, like a ring: a guest may have taken over the one that
// wrote.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <span>

#include "protocols/words.h"
#include "ring/escape.h"

namespace caisson::console {

// Where the log goes on: in file turn % 2, at offset.
struct LogPosition {
    std::uint32_t turn = 0, offset = 0;
    EscapeState escape;
};

struct Progress {
    std::uint32_t consumed = 0;   // of the out ring
    std::uint32_t queue_end = 0;  // runs freely; the queue holds [queue_begin, queue_end)
    LogPosition log;
};

class Journal {
  public:
    static constexpr std::size_t bytes(std::uint32_t capacity) { return sizeof(Head) + capacity; }

    Journal() = default;
    // `memory` is bytes(capacity) long; capacity is a power of two.
    static Result<Journal> start(std::span<std::byte> memory, std::uint32_t capacity, const Progress& first,
                                 std::uint32_t produced) {
        Journal journal(memory, capacity);
        if (memory.size() < bytes(capacity)) return host_fault(EINVAL, "console journal's size");
        *journal.head_ = Head{.magic = magic, .capacity = capacity, .produced = produced, .progress = {first, first}};
        journal.head_->queue_begin = first.queue_end;
        return journal;
    }
    static Result<Journal> resume(std::span<std::byte> memory, std::uint32_t capacity) {
        Journal journal(memory, capacity);
        if (memory.size() < bytes(capacity)) return host_fault(EINVAL, "console journal's size");
        const Head head = *journal.head_;
        if (head.magic != magic || head.capacity != capacity || head.active > 1)
            return host_fault(EINVAL, "console journal's head");
        const Progress& progress = head.progress[head.active];
        if (progress.queue_end - head.queue_begin > capacity) return host_fault(EINVAL, "console journal's queue");
        if (!progress.log.escape.valid()) return host_fault(EINVAL, "console journal's log");
        return journal;
    }
    // No worker has been here yet: the predecessor died before it began.
    static bool blank(std::span<const std::byte> memory) {
        std::uint32_t found = 0;
        if (memory.size() >= sizeof found) std::memcpy(&found, memory.data(), sizeof found);
        return found == 0;
    }

    const Progress& progress() const { return head_->progress[head_->active]; }
    void commit(const Progress& next) {
        const std::uint32_t other = 1 - head_->active;
        head_->progress[other] = next;
        std::atomic_signal_fence(
            std::memory_order_seq_cst);  // the death of a process reorders nothing but its compiler
        head_->active = other;
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    // How much was written into the ring towards the guest.
    std::uint32_t& produced() { return head_->produced; }

    // ---- Output that waits for a reader ----
    std::size_t waiting() const { return progress().queue_end - head_->queue_begin; }
    // Puts bytes behind the queue; they count from commit() of `next` on. Returns how many of the oldest were dropped.
    std::size_t push(Progress& next, std::span<const std::byte> from) {
        const std::size_t skipped = from.size() > capacity_ ? from.size() - capacity_ : 0;
        from = from.subspan(skipped);
        const std::size_t filled = next.queue_end - head_->queue_begin, room = capacity_ - filled;
        const std::size_t dropped = from.size() > room ? from.size() - room : 0;
        head_->queue_begin += static_cast<std::uint32_t>(dropped);
        const std::size_t at = next.queue_end & (capacity_ - 1), first = std::min(from.size(), capacity_ - at);
        std::memcpy(queue_ + at, from.data(), first);
        std::memcpy(queue_, from.data() + first, from.size() - first);
        next.queue_end += static_cast<std::uint32_t>(from.size());
        return skipped + dropped;
    }
    // The oldest bytes in one piece, at most `most`: taken from here on.
    std::span<const std::byte> take(std::size_t most) {
        const std::size_t at = head_->queue_begin & (capacity_ - 1);
        const std::size_t count = std::min({most, waiting(), static_cast<std::size_t>(capacity_) - at});
        head_->queue_begin += static_cast<std::uint32_t>(count);
        std::atomic_signal_fence(std::memory_order_seq_cst);  // die here: they count as handed over
        return {queue_ + at, count};
    }
    void put_back(std::size_t count) { head_->queue_begin -= static_cast<std::uint32_t>(count); }

  private:
    struct Head {
        std::uint32_t magic = 0, capacity = 0;
        std::uint32_t active = 0;
        std::uint32_t queue_begin = 0;
        std::uint32_t produced = 0;
        std::array<Progress, 2> progress{};
    };
    static constexpr std::uint32_t magic = 0x434F4E31;  // "CON1": the version

    Journal(std::span<std::byte> memory, std::uint32_t capacity)
        : head_(reinterpret_cast<Head*>(memory.data())), queue_(memory.data() + sizeof(Head)), capacity_(capacity) {}

    Head* head_ = nullptr;
    std::byte* queue_ = nullptr;
    std::uint32_t capacity_ = 0;
};

}  // namespace caisson::console
