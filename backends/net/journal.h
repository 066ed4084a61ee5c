// What of a vif survives its worker. Untrusted to the successor: the predecessor may have been taken over by its guest.
//
// `settled` is the response index at the last packet boundary. Responses of one packet are pushed one by one but shown
// to the frontend only together, so a successor goes back to the boundary: half a packet was never seen by anybody.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "protocols/net_control.h"
#include "ring/shared_ring.h"

namespace caisson::net::backend {

template <RingProtocol P, std::size_t Slots>
struct RingJournal {
    RingIndices indices;
    std::uint32_t settled = 0;
    std::array<typename P::Request, Slots> snapshots{};

    // All responses of a packet are pushed.
    void settle() {
        std::atomic_signal_fence(std::memory_order_release);
        settled = indices.produced;
    }
    // Before attaching: forget the responses of a packet that was not finished.
    Status go_back(std::uint32_t longest_packet) {
        if (indices.produced - settled > longest_packet)
            return peer_fault("journal: responses behind a packet boundary", indices.produced - settled,
                              Wanted::at_most, longest_packet);
        indices.produced = settled;
        return {};
    }
};

// The ring of a queue: taken over from a predecessor, or a frontend's (new, or still full of posted buffers).
template <RingProtocol P, std::size_t Slots>
Result<BackRing<P>> take_ring(SharedSpan page, RingJournal<P, Slots>& journal, bool successor,
                              std::uint32_t longest_packet) {
    if (successor) {
        TRY(journal.go_back(longest_packet));
        return BackRing<P>::attach(page, journal.indices, journal.snapshots);
    }
    auto ring = BackRing<P>::attach_at_live_indices(page, journal.indices, journal.snapshots);
    journal.settle();
    return ring;
}

struct QueueJournal {
    RingJournal<TxRing, ring_slots> tx;
    RingJournal<RxRing, ring_slots> rx;
};

inline constexpr std::size_t control_slots = 128;
inline constexpr std::uint32_t journal_magic = 0x4E455431;  // "NET1"

struct Journal {
    std::uint32_t magic = 0;  // written last, when the rings are taken; 0: there is nothing to continue
    std::uint32_t multicast_count = 0;
    std::array<Mac, max_multicast> multicast{};
    ReceiveHash hash;
    RingJournal<ControlRing, control_slots> control;
    std::array<QueueJournal, max_queues> queues{};
};

constexpr std::size_t journal_bytes(unsigned queues) {
    return offsetof(Journal, queues) + queues * sizeof(QueueJournal);
}

}  // namespace caisson::net::backend
