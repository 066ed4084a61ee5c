// A tx ring's frontend half: frames from an attachment into pages that the backend may only read.
//
// The pages are shared once and belong to nothing else (XSA-403): a frame is read from the kernel straight into them.
// An id names a page; it is ours again when an answer names it, once.
//
// Never takes a frame that does not fit: what has no room waits in the attachment's own queue, which drops at its tail.
// Threads: the device's.
#pragma once

#include <algorithm>
#include <bitset>
#include <vector>

#include "frontends/net/attachment.h"
#include "frontends/net/journal.h"
#include "ring/hypervisor.h"
#include "ring/stats.h"

namespace caisson::net::frontend {

class Transmitter {
  public:
    struct Setup {
        Hypervisor& hypervisor;
        DomainId peer{};
        SharedSpan ring;
        TxJournal& journal;
        QueueStats& stats;
        std::uint32_t largest = max_packet;  // frame
        Offloads offloads;                   // the backend's
    };
    // A new arena of pages; the rest goes on where the journal says. Errors: fault host.
    static Result<Transmitter> make(Setup setup);

    // True: a frame of the largest size fits into the ring and the arena.
    bool room() const { return arena_ && ring_.free() >= slots_wanted() && free_.size() >= pages_wanted(); }

    // Takes up to `budget` frames; stops without one when there is no room(). `notify` when the backend asked for it.
    struct Taken {
        unsigned frames = 0;
        bool notify = false, gone = false;
    };
    Taken take(FramePort& port, unsigned budget);

    // Joins or leaves a multicast group in the backend's filter (netif.h, MCAST_ADD and MCAST_DEL). False: no room now.
    bool multicast(bool add, const Mac& mac, bool& notify);

    // Takes the backend's answers: how many. An error: the backend broke the rules.
    Result<unsigned> reap();
    // Wakes for the next answer; only worth it while a frame waits for room. True when there are answers already.
    // Called when there is no room for a frame: worth waking for once half of what is out is answered, since a slot or
    // two make no room, and a wake-up a frame is what halves the throughput.
    Result<bool> arm() { return ring_.arm(std::max(1u, ring_.outstanding() / 2)); }

    unsigned outstanding() const { return ring_.outstanding(); }
    // Arenas that predecessors left and that the backend may still read from.
    std::size_t old_arenas() const;

  private:
    Transmitter(const Setup& setup, FrontRing<TxRing> ring) : setup_(setup), ring_(ring) {}

    std::uint32_t pages_wanted() const { return (setup_.largest + page_size - 1) / page_size; }
    std::uint32_t slots_wanted() const { return pages_wanted() + 1; }  // and an extra
    Status share_arena();
    Status share_when_possible();
    void recount();
    void send(const VirtioHeader& header, std::uint32_t length);
    std::uint16_t next_id();
    void push(const TxRequest& request);
    void push_data(std::uint16_t id, std::uint16_t size, std::uint16_t flags);
    void note_whole();
    bool commit();
    Status answer(const TxAnswer& answer, std::uint32_t index);
    void retire_arena(unsigned arena);

    Setup setup_;
    FrontRing<TxRing> ring_;
    SharedPages arena_;
    std::array<SharedPages, kept_arenas> old_;
    std::array<unsigned, kept_arenas> left_{};  // ids of each arena that the backend has
    unsigned current_ = 0;                      // our arena's number
    std::vector<std::uint16_t> free_;           // ids; the last one used is the first one used again: its page is warm
    unsigned busy_ = 0;                         // ids the backend has
    unsigned extras_ = 0;                       // extra slots without their answer
    bool seen_before_ = false;                  // a predecessor died over a response: its id may be ours already
};

}  // namespace caisson::net::frontend
