#include "frontends/net/receiver.h"

#include <array>

namespace caisson::net::frontend {

namespace {

// A packet that was not whole when our predecessor died is taken again from its first slot: its buffers were not posted
// again, so its responses still stand in the ring.
Status rewind(RxJournal& journal) {
    RingIndices& ring = journal.ring;
    if (ring.consumed - journal.whole > fatal_slots + max_extras) return host_fault(EBADMSG, "journal: rx packet");
    ring.consumed = journal.whole;
    return {};
}

}  // namespace

Result<Receiver> Receiver::make(Setup setup) {
    TRY(rewind(setup.journal));
    Receiver rx(setup, TRY(FrontRing<RxRing>::attach(setup.ring, setup.journal.ring)));
    TRY(rx.share_arena());
    (void)rx.post();  // the worker notifies once in any case
    return rx;
}

Status Receiver::share_arena() {
    ArenaRecord& record = setup_.journal.arena;
    if (record.state == ArenaRecord::shared)
        arena_ = TRY(setup_.hypervisor.reclaim(GrantRef(record.first)));
    else
        arena_ = TRY(share_noted(setup_.hypervisor, setup_.peer, arena_pages, Access::read_write, record));
    if (arena_.memory().size() != arena_pages * page_size || arena_.refs().size() != arena_pages)
        return host_fault(EBADMSG, "journal: rx pages");
    return {};
}

Result<Receiver::Received> Receiver::receive(const FramePort& port, unsigned budget) {
    Received done;
    done.responses = TRY(ring_.drain(budget, [&](Untrusted<RxResponse>&& raw, std::uint32_t index) {
        const Result<bool> whole =
            std::move(raw).check([&](const RxResponse& response) { return take(response, index); });
        if (!whole) return ring_.mark_broken(whole.error());
        if (!*whole) return;
        std::atomic_signal_fence(std::memory_order_seq_cst);  // after the ring's index, which may run ahead of it
        // At most once: a death in the middle of handing it on drops it.
        setup_.journal.whole = index + 1;
        std::atomic_signal_fence(std::memory_order_release);
        deliver(port);
    }));
    if (ring_.broken()) return std::unexpected(ring_.fault());
    if (done.responses == 0) return done;
    setup_.stats.responses.add(done.responses);
    done.notify = post();
    return done;
}

Result<bool> Receiver::take(const RxResponse& response, std::uint32_t index) {
    const std::uint32_t slot = index % ring_slots;
    if (!packet_.expects_extra() && response.id != slot)
        return peer_fault("rx response id", response.id, Wanted::exactly, slot);
    return packet_.take(response, index);
}

SharedSpan Receiver::bytes_of(const RxSlice& slice) const {
    return arena_.memory().subspan(slice.index % ring_slots * page_size + slice.offset, slice.length);
}

// [virtio header][private copy of the headers, when we looked at them][the rest, straight from the pages]
void Receiver::deliver(const FramePort& port) {
    const RxPacket& packet = packet_.packet();
    if (packet.rejected != nullptr || packet.count == 0) return setup_.stats.errors.add(1);
    std::array<iovec, 2 + max_slots> frame;
    std::array<std::byte, header_bytes> copy;
    std::size_t parts = 1, copied = 0;
    VirtioHeader header;
    if (packet.csum_blank || packet.extras.gso.type != GsoType::none) {
        const std::size_t wanted = std::min<std::size_t>(packet.size, copy.size());
        for (unsigned i = 0; i < packet.count && copied < wanted; ++i) {
            const std::size_t bytes = std::min<std::size_t>(packet.slices[i].length, wanted - copied);
            (void)bytes_of(packet.slices[i]).copy_out(0, std::span(copy).subspan(copied, bytes));
            copied += bytes;
        }
        const auto head = std::span(copy).first(copied);
        const auto made = to_virtio({packet.csum_blank, packet.data_validated, packet.extras.gso}, head,
                                    parse_headers(head), packet.size);
        if (!made) return setup_.stats.errors.add(1);
        header = *made;
        frame[parts++] = {copy.data(), copied};
    } else if (packet.data_validated) {
        header.flags = virtio::data_valid;
    }
    std::size_t skip = copied;
    for (unsigned i = 0; i < packet.count; ++i) {
        const std::size_t here = std::min<std::size_t>(skip, packet.slices[i].length);
        skip -= here;
        if (here == packet.slices[i].length) continue;
        const auto bytes = bytes_of(packet.slices[i]);
        frame[parts++] = bytes.subspan(here, bytes.size() - here).for_kernel();
    }
    if (port.give(header, std::span(frame).first(parts)))
        setup_.stats.bytes_out.add(packet.size);
    else
        setup_.stats.dropped.add(1);
}

// Every slot whose packet is done gets its buffer again.
bool Receiver::post() {
    RingIndices& ring = setup_.journal.ring;
    const std::uint32_t until = setup_.journal.whole + ring_slots;
    if (ring.produced == until) return false;
    setup_.stats.requests.add(until - ring.produced);
    while (ring.produced != until) {
        const std::uint32_t slot = ring.produced % ring_slots;
        ring_.push({.id = static_cast<std::uint16_t>(slot), .pad = 0, .gref = arena_.refs()[slot].raw});
    }
    return ring_.publish();
}

}  // namespace caisson::net::frontend
