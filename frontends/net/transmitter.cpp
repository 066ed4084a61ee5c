#include "frontends/net/transmitter.h"

#include "frontends/net/checksum.h"
#include "protocols/net_packets.h"

namespace caisson::net::frontend {

namespace {

constexpr unsigned publish_every =
    32;  // requests: the backend starts on the first while we read the next from the kernel

std::unexpected<Error> bad_journal(const char* what) { return host_fault(EBADMSG, what); }

// Back to the last point at which the journal is true: an unfinished packet was never published, a response whose
// bookkeeping was cut short is taken again.
Status rewind(TxJournal& journal) {
    RingIndices& ring = journal.ring;
    if (ring.produced - journal.whole > max_slots + max_extras) return bad_journal("journal: tx packet");
    if (ring.consumed - journal.answered > 1) return bad_journal("journal: tx answers");
    ring = {.consumed = journal.answered, .produced = journal.whole};
    for (TxId& id : journal.ids) {
        if (id.busy > 1 || id.arena >= kept_arenas) return bad_journal("journal: tx id");
        if (static_cast<std::int32_t>(id.index - journal.whole) >= 0) id.busy = 0;  // given to nobody
    }
    return {};
}

}  // namespace

Result<Transmitter> Transmitter::make(Setup setup) {
    TRY(rewind(setup.journal));
    Transmitter tx(setup, TRY(FrontRing<TxRing>::attach(setup.ring, setup.journal.ring)));
    tx.recount();
    if (tx.busy_ > tx.ring_.outstanding()) return bad_journal("journal: more tx ids than requests");
    tx.extras_ = tx.ring_.outstanding() - tx.busy_;
    tx.seen_before_ = tx.extras_ > 0;  // the next answer's id may be free already; several deaths may have come since
    TRY(tx.share_arena());
    // Before anything is sent: the id of an answer that is seen again must not have been given away anew.
    if (tx.seen_before_) (void)TRY(tx.reap());
    tx.seen_before_ = false;
    return tx;
}

void Transmitter::recount() {
    free_.clear();
    free_.reserve(ring_slots);
    left_ = {};
    for (std::uint16_t id = ring_slots; id-- > 0;) {
        const TxId& entry = setup_.journal.ids[id];
        if (entry.busy == 0)
            free_.push_back(id);
        else
            ++busy_, ++left_[entry.arena];
    }
}

// Takes over what predecessors shared, so that it can be ended once its last packet is answered; then shares our own
// pages. Read-only pages come back without memory, so there is no going on with the old ones.
Status Transmitter::share_arena() {
    auto& arenas = setup_.journal.arenas;
    for (unsigned i = 0; i < kept_arenas; ++i) {
        if (arenas[i].state != ArenaRecord::shared) continue;
        if (auto old = setup_.hypervisor.reclaim(GrantRef(arenas[i].first)))
            old_[i] = std::move(*old);
        else
            arenas[i] = {};  // gone with the connection it was shared through
        if (left_[i] == 0) retire_arena(i);
    }
    return share_when_possible();
}

// One arena a life, and so many lives: with all records in use nothing is sent until the backend has answered for one.
// Ending an arena early would be wrong: its references could name other pages by the time the backend uses them.
Status Transmitter::share_when_possible() {
    auto& arenas = setup_.journal.arenas;
    current_ = kept_arenas;
    for (unsigned i = 0; i < kept_arenas; ++i)
        if (arenas[i].state == ArenaRecord::none && left_[i] == 0) current_ = i;
    if (current_ == kept_arenas) return {};
    arena_ = TRY(share_noted(setup_.hypervisor, setup_.peer, arena_pages, Access::read_only, arenas[current_]));
    return {};
}

void Transmitter::retire_arena(unsigned arena) { end_noted(old_[arena], setup_.journal.arenas[arena]); }

std::size_t Transmitter::old_arenas() const {
    return static_cast<std::size_t>(std::count_if(old_.begin(), old_.end(), [](const auto& old) { return !!old; }));
}

Transmitter::Taken Transmitter::take(FramePort& port, unsigned budget) {
    Taken done;
    std::array<iovec, max_packet / page_size + 3> pages;  // header, the largest frame, and one byte beyond
    unsigned unpublished = 0;
    while (done.frames < budget && room()) {
        const std::uint32_t count = pages_wanted();
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint16_t id = free_[free_.size() - 1 - i];
            pages[1 + i] = arena_.memory().subspan(id * page_size, page_size).for_kernel();
        }
        VirtioHeader header;
        const FramePort::Taken taken = port.take(header, std::span(pages).first(count + 2));
        if (taken.what == FramePort::Taken::What::nothing) break;
        if (taken.what == FramePort::Taken::What::gone) {
            done.gone = true;
            break;
        }
        ++done.frames;
        if (taken.what == FramePort::Taken::What::too_long || taken.length > setup_.largest) {
            setup_.stats.dropped.add(1);
            continue;
        }
        const std::uint32_t before = setup_.journal.ring.produced;
        send(header, taken.length);
        unpublished += setup_.journal.ring.produced - before;
        if (unpublished < publish_every) continue;
        unpublished = 0;
        done.notify |= commit();
    }
    done.notify |= commit();
    return done;
}

// A frame that lies in the pages of the next free ids.
void Transmitter::send(const VirtioHeader& header, std::uint32_t length) {
    std::array<std::byte, header_bytes> copy;
    const auto pages = arena_.memory();
    auto page_of = [&](std::uint32_t i) { return pages.subspan(free_[free_.size() - 1 - i] * page_size, page_size); };
    const auto head = std::span(copy).first(std::min<std::size_t>(length, header_bytes));
    auto offload = from_virtio(header);
    if (offload && offload->csum_blank) {
        (void)page_of(0).copy_out(0, head);
        if (!implied(header, parse_headers(head), setup_.offloads)) {
            if (offload->gso.type == GsoType::none && complete(header, length, page_of))
                offload->csum_blank = false;
            else
                offload.reset();
        }
    }
    if (!offload || !setup_.offloads.gso(offload->gso.type)) return setup_.stats.dropped.add(1);

    std::uint16_t flags =
        (offload->csum_blank ? tx_flag::csum_blank : 0) | (offload->data_validated ? tx_flag::data_validated : 0);
    const bool gso = offload->gso.type != GsoType::none;
    if (gso) flags |= tx_flag::extra_info;
    std::uint32_t rest = length;
    for (bool first = true; rest > 0; first = false) {
        const auto size = static_cast<std::uint16_t>(std::min<std::uint32_t>(rest, page_size));
        rest -= size;
        const std::uint16_t more = rest > 0 ? tx_flag::more_data : 0;
        push_data(next_id(), first ? static_cast<std::uint16_t>(length) : size, (first ? flags : 0) | more);
        if (first && gso) push(in_tx_slot(gso_extra(offload->gso))), ++extras_;
    }
    note_whole();
    setup_.stats.bytes_in.add(length);
}

bool Transmitter::multicast(bool add, const Mac& mac, bool& notify) {
    if (!arena_ || ring_.free() < 2 || free_.empty()) return false;
    push_data(next_id(), min_packet, tx_flag::extra_info);  // the slot in front of an extra; it carries no frame
    push(in_tx_slot(mcast_extra(add, mac)));
    ++extras_;
    note_whole();
    notify |= commit();
    return true;
}

void Transmitter::note_whole() {
    std::atomic_signal_fence(std::memory_order_seq_cst);  // after all of the packet's requests
    setup_.journal.whole = setup_.journal.ring.produced;
}

std::uint16_t Transmitter::next_id() {
    const std::uint16_t id = free_.back();
    free_.pop_back();
    return id;
}

void Transmitter::push_data(std::uint16_t id, std::uint16_t size, std::uint16_t flags) {
    // Busy before the request exists: a death between the two gives the id back (rewind).
    setup_.journal.ids[id] = {
        .index = setup_.journal.ring.produced, .busy = 1, .arena = static_cast<std::uint8_t>(current_)};
    std::atomic_signal_fence(std::memory_order_release);
    ++busy_, ++left_[current_];
    push({.gref = arena_.refs()[id].raw, .offset = 0, .flags = flags, .id = id, .size = size});
}

void Transmitter::push(const TxRequest& request) {
    ring_.push(request);
    setup_.stats.requests.add(1);
}

bool Transmitter::commit() { return ring_.publish(); }

Result<unsigned> Transmitter::reap() {
    unsigned count = 0;
    const auto drained = ring_.drain(ring_slots, [&](Untrusted<TxResponse>&& raw, std::uint32_t index) {
        Status taken = std::move(raw).check(
            [&](const TxResponse& response) -> Status { return answer(TRY(parse(response)), index); });
        if (!taken) ring_.mark_broken(std::move(taken).error());
        ++count;
    });
    if (!drained || ring_.broken()) return std::unexpected(ring_.fault());
    setup_.stats.responses.add(count);
    if (count > 0 && !arena_) TRY(share_when_possible());
    return count;
}

Status Transmitter::answer(const TxAnswer& one, std::uint32_t index) {
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // the ring's index is noted first, then the id, then `answered`
    const bool again = std::exchange(seen_before_, false);
    if (one.what == TxAnswer::What::extra) {
        if (extras_ == 0) return peer_fault("tx answer to an extra that was not sent");
        --extras_;
    } else {
        if (one.id >= ring_slots) return peer_fault("tx id", one.id, Wanted::at_most, ring_slots - 1);
        TxId& id = setup_.journal.ids[one.id];
        if (id.busy == 0) {
            if (!again || extras_ == 0)
                return peer_fault("tx answer to nothing outstanding, id", one.id, Wanted::at_most, 0);
            --extras_;  // our predecessor had freed it, so it was counted as an extra when we looked
        } else {
            id.busy = 0;
            --busy_;
            free_.push_back(one.id);
            if (one.what == TxAnswer::What::failed) setup_.stats.errors.add(1);
            if (--left_[id.arena] == 0 && id.arena != current_) retire_arena(id.arena);
        }
    }
    std::atomic_signal_fence(std::memory_order_release);
    setup_.journal.answered = index + 1;
    return {};
}

}  // namespace caisson::net::frontend
