// What a net frontend's worker keeps in its journal: enough for the next one to go on after a death at any instruction.
// Plain values, all zero at first; untrusted when read by a successor (check() in the classes that own each part).
//
// Packets in flight are not kept: what was on its way is answered and dropped. What is kept is the meaning of every
// ring slot: which tx ids the backend still has, which posted buffers it may still fill.
#pragma once

#include <array>
#include <cstdint>

#include "protocols/net.h"
#include "ring/hypervisor.h"
#include "ring/shared_ring.h"

namespace caisson::net::frontend {

inline constexpr std::uint32_t arena_pages = ring_slots;  // tx and rx: a page a slot
inline constexpr unsigned kept_arenas = 8;                // of predecessors whose packets are not answered yet

// Pages that a worker shared. `sharing` is written before they are, so that a successor knows when some may exist that
// nobody has noted; `ending` before they are ended, for their reference may name other pages right after.
struct ArenaRecord {
    static constexpr std::uint32_t none = 0, shared = 1, sharing = 2, ending = 3;
    std::uint32_t state = none;
    std::uint32_t first = 0;  // the first grant reference
};

struct TxId {
    std::uint32_t index = 0;  // of the request that gave it away
    std::uint8_t busy = 0;
    std::uint8_t arena = 0;  // which of TxJournal::arenas holds its page
    std::uint16_t unused = 0;
};

struct TxJournal {
    RingIndices ring;
    std::uint32_t whole = 0;     // requests below it are whole packets: no more than these is ever published
    std::uint32_t answered = 0;  // responses below it are accounted for in `ids`
    std::array<ArenaRecord, kept_arenas> arenas{};
    std::array<TxId, ring_slots> ids{};
};

struct RxJournal {
    RingIndices ring;
    std::uint32_t whole = 0;  // responses below it belong to packets that were handed on or dropped
    ArenaRecord arena;
};

struct ControlJournal {
    RingIndices ring;
    ArenaRecord pages;
    std::uint32_t next_id = 0;  // of a request; the one below it may be unanswered
    std::uint32_t done = 0;     // nothing more to ask for
};

struct QueueJournal {
    TxJournal tx;
    RxJournal rx;
};

struct Journal {
    std::array<QueueJournal, max_queues> queue{};
    ControlJournal control;
};
static_assert(std::is_trivially_copyable_v<Journal>);

// Shares new pages and notes them.
Result<SharedPages> share_noted(Hypervisor& hypervisor, DomainId peer, std::uint32_t pages, Access access,
                                ArenaRecord& record);

// Ends them, or leaves them to the quarantine while the backend still maps them (XSA-396).
void end_noted(SharedPages& pages, ArenaRecord& record);

// Ends what a predecessor shared and did not come to note, and what it did not come to end. Before anything new is
// shared. References that nobody noted are tried one by one, for no hypervisor lists them; this is needed only after a
// death in the middle of share_noted().
void end_forgotten(Hypervisor& hypervisor, Journal& journal);

}  // namespace caisson::net::frontend
