#include "frontends/block/queue.h"

namespace caisson::block::frontend {

Result<Queue> Queue::open(SharedPages pages, EventChannel channel, QueueJournal& journal,
                          std::span<Pieces, most_tags> pieces, QueueStats& stats) {
    RingIndices& indices = journal.ring;
    const std::uint32_t taken = indices.consumed - journal.answered;
    if (taken > 1) return host_fault(EBADMSG, "journal: answers not accounted for");
    // The response still stands in its slot: nothing is pushed before it is accounted for.
    indices.consumed = journal.answered;
    if (journal.last_tag != 0 && journal.last_index == indices.produced) {  // noted, and never pushed
        const PieceId last{journal.last_tag - 1, journal.last_piece};
        if (!last.valid()) return host_fault(EBADMSG, "journal: last piece");
        pieces[last.tag].sent &= ~last.bit();
    }
    const SharedSpan memory = pages.memory();
    return Queue(std::move(pages), std::move(channel), TRY(FrontRing<Native>::attach(memory, indices)), journal, stats);
}

}  // namespace caisson::block::frontend
