// What of a disk survives its worker. Untrusted to the successor: the predecessor may have been taken over by its
// guest.
//
//     JournalHead | for each queue: RingIndices, padded to 64 bytes; InFlightEntry[slots of the ring]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/block/config.h"
#include "ring/in_flight.h"

namespace caisson::block::backend {

inline constexpr std::uint32_t journal_magic = 0x424C4B31;  // "BLK1"

struct alignas(64) JournalHead {
    std::uint32_t magic = 0;  // written last, when the rings are taken; 0: there is nothing to continue
    // A flush failed: nobody knows what is on the disk. Until the frontend reconnects no write and no flush is
    // acknowledged, by no successor either.
    std::uint32_t flush_failed = 0;
    std::uint64_t sectors = 0;  // after a resize; 0: as the handover says
};

struct alignas(64) QueueHead {
    RingIndices indices;
};

template <RingProtocol P>
constexpr std::size_t queue_journal_bytes(std::uint32_t ring_pages) {
    const std::size_t entries = ring_slots<P>(ring_pages * page_size) * sizeof(InFlightEntry<typename P::Request>);
    return sizeof(QueueHead) + (entries + 63) / 64 * 64;
}

inline std::size_t queue_journal_bytes(const Config& config) {
    return config.abi == Abi::x86_32 ? queue_journal_bytes<Narrow>(config.ring_pages)
                                     : queue_journal_bytes<Native>(config.ring_pages);
}
inline std::size_t journal_bytes(const Config& config) {
    return sizeof(JournalHead) + config.queues * queue_journal_bytes(config);
}

// One queue's part of a journal that is journal_bytes() long.
template <RingProtocol P>
struct QueueJournal {
    RingIndices& indices;
    std::span<InFlightEntry<typename P::Request>> entries;

    static QueueJournal of(std::span<std::byte> journal, const Config& config, unsigned queue) {
        std::byte* at = journal.data() + sizeof(JournalHead) + queue * queue_journal_bytes(config);
        auto* entries = reinterpret_cast<InFlightEntry<typename P::Request>*>(at + sizeof(QueueHead));
        return {reinterpret_cast<QueueHead*>(at)->indices, {entries, ring_slots<P>(config.ring_pages * page_size)}};
    }
};

}  // namespace caisson::block::backend
