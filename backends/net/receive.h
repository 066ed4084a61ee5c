// Host to guest: one queue's rx ring and the buffers that the guest has posted in it.
//
// A packet goes from the host's kernel straight into the guest's buffers, but for its first bytes, which are looked at
// in a private copy. Where that is not possible (few buffers, a hash to be taken, grants out of direct reach) it is
// read into private memory first. A packet that finds no room waits in a backlog that is bounded in bytes and packets
// and drops at its tail; while something waits, a TAP is not read, so that everything else waits in the TAP's own
// queue.
//
// Stall (XSA-392): "the next packet cannot be placed", not "there is no buffer". See Worker::look_for_stall().
#pragma once

#include <chrono>
#include <deque>

#include "backends/net/vif.h"
#include "protocols/net_packets.h"

namespace caisson::net::backend {

class Receive {
  public:
    static constexpr std::size_t backlog_bytes = 1 << 20, backlog_packets = 256;

    // Continues with every buffer that the frontend has posted, whoever took it.
    static Result<Receive> make(Vif& vif, unsigned queue, SharedSpan page, Doorbell& bell, bool successor);

    // Takes note of newly posted buffers and places what waited for them. True when there was some progress.
    Result<bool> take_buffers();
    // Reads one packet out of the host straight into the guest's buffers. False: there was none. Only when room().
    Result<bool> receive_in_place();
    // Places a packet, or lets it wait, or drops it. What it places is shown to the guest at publish().
    Status put(const Frame& frame, const std::optional<PacketHash>& hash);

    // Shows the guest what was placed; its doorbell may be due then.
    void publish() { bell_->due |= ring_.publish(); }
    // Asks the frontend to notify when it posts buffers, if the next packet might find too few.
    Result<bool> arm();

    // The next packet, whatever its size, can be placed.
    bool room() const { return backlog_.empty() && ring_.unanswered() >= pages_ + most_extras(); }
    bool waiting() const { return !backlog_.empty(); }
    // Since when no packet could be placed, while one was waiting.
    std::chrono::steady_clock::time_point waiting_since() const { return waiting_since_; }
    void purge();  // throws the backlog away
    void drop() { stats().dropped.add(1); }
    // Views of the guest's buffers are good for one call of the event loop only.
    void forget_views() { viewed_until_ = ring_.first_unanswered(); }

  private:
    struct Waiting {
        VirtioHeader virtio;
        std::optional<PacketHash> hash;
        std::vector<std::byte> bytes;
    };
    enum class Placed : std::uint8_t { placed, no_room, dropped };

    Receive(Vif& vif, unsigned queue, BackRing<RxRing> ring, Doorbell& bell);

    Result<Placed> place(const Frame& frame, const std::optional<PacketHash>& hash);
    void wait_for_room(const Frame& frame, const std::optional<PacketHash>& hash);
    Status place_waiting();
    bool reach(std::uint32_t slots);
    void refuse_buffers(std::uint32_t slots);
    void respond(std::uint32_t size, const Offload& offload, const std::optional<PacketHash>& hash);
    bool copy_in_place(const Frame& frame, std::uint32_t extras);
    bool copy_by_grant(const Frame& frame, std::uint32_t extras);
    void close_gap(std::uint32_t size);

    // GSO is possible, a hash is asked for.
    unsigned most_extras() const { return (gso_ ? 1u : 0u) + (vif_->hash().enabled() ? 1u : 0u); }
    // The slot of a packet's n-th page: its extras lie between the first and the second.
    static std::uint32_t slot_of(std::uint32_t page, std::uint32_t extras) { return page == 0 ? 0 : page + extras; }
    RxBuffer buffer(std::uint32_t index) const;
    SharedSpan& view(std::uint32_t index) { return views_[index & (ring_slots - 1)]; }
    QueueStats& stats() { return vif_->context.stats.queue[queue_]; }

    Vif* vif_;
    unsigned queue_;
    BackRing<RxRing> ring_;
    RingJournal<RxRing, ring_slots>* journal_;
    Doorbell* bell_;
    bool gso_;
    std::uint32_t largest_, pages_;  // of one packet
    std::deque<Waiting> backlog_;
    std::size_t waiting_bytes_ = 0;
    std::chrono::steady_clock::time_point waiting_since_{};
    std::uint32_t viewed_until_ = 0;  // views_ below this index are good
    std::array<SharedSpan, ring_slots> views_;
    std::array<std::byte, header_bytes> head_;
};

}  // namespace caisson::net::backend
