// Guest to host: one queue's tx ring.
//
// The first bytes of a packet are copied once and checked in the copy; the rest goes from the guest's pages to the host
// without anybody looking at it. Every slot taken is answered, in order, within the same call.
#pragma once

#include "backends/net/vif.h"
#include "protocols/net_packets.h"

namespace caisson::net::backend {

class Transmit {
  public:
    // Continues what a predecessor left: packets that it took and did not answer are answered as dropped, and the start
    // of a packet whose end was still to come stays its start.
    static Result<Transmit> make(Vif& vif, unsigned queue, SharedSpan page, Doorbell& bell, bool successor);

    // Up to a budget of slots. True when there was some.
    Result<bool> poll();
    // Asks the frontend to notify. True when there is work already. Does not ask while the rate limit holds.
    Result<bool> arm();
    // A limit of the vif has run dry.
    bool waiting_for_rate() const { return waiting_; }

  private:
    Transmit(Vif& vif, unsigned queue, BackRing<TxRing> ring, Doorbell& bell)
        : vif_(&vif), queue_(queue), ring_(std::move(ring)), journal_(&vif.journal.queues[queue].tx), bell_(&bell) {}

    bool must_wait();
    void complete(bool send);
    std::int16_t serve(const TxPacket& packet);
    std::int16_t change_multicast(const Extras& extras);
    bool gather(const TxPacket& packet, Frame& frame);
    bool gather_in_place(const TxPacket& packet, Frame& frame);
    bool gather_copies(const TxPacket& packet, Frame& frame);
    QueueStats& stats() { return vif_->context.stats.queue[queue_]; }

    Vif* vif_;
    unsigned queue_;
    BackRing<TxRing> ring_;
    RingJournal<TxRing, ring_slots>* journal_;
    Doorbell* bell_;
    TxAssembler assembler_;
    bool waiting_ = false;
    std::uint32_t turns_ = 0;
    std::array<std::byte, header_bytes> head_;
    std::array<SharedSpan, max_slots> rest_;
};

}  // namespace caisson::net::backend
