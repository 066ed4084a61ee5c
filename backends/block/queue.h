// One ring of a disk: requests out of it, through the host, answers into it.
//
// A request's data is reached in one of three ways, as a whole:
//   * in place: a view of the frontend's pages, good for this turn: for hosts that are done at once, where the port has
//     views;
//   * mapped: persistent grants, kept by the cache;
//   * bounced: private memory, and a grant copy before or after: for everything else, and what the cache has no place
//     for.
//
// Requests that cannot start yet (no room, a barrier, a host that is not ready) wait in the order of the ring, and
// everything behind them; the ring is not read meanwhile.
#pragma once

#include <memory>

#include "backends/block/disk.h"

namespace caisson::block::backend {

class Queue {
  public:
    // Takes its part of the handover: ring references, event channel. The ring's slots depend on the frontend's ABI.
    static Result<std::unique_ptr<Queue>> make(Disk& disk, unsigned number, HandoverReader& handover, bool successor);
    virtual ~Queue() = default;

    // Some work, all answers that are due, one notify. True when there was something to do.
    virtual Result<bool> poll() = 0;
    // Asks the frontend to notify. True when there is work already. Does not ask while requests wait.
    virtual Result<bool> arm() = 0;
    // The host has done an Io of this queue.
    virtual void done(std::uint32_t tag, int error) = 0;
    // The device is broken: what is in flight ends without an answer.
    virtual void give_up() = 0;
    // Requests were left in the ring because of the rate limit.
    virtual bool throttled() const = 0;
    virtual const EventChannel& channel() const = 0;
    virtual std::uint32_t pages_mapped() const = 0;

    // A tag as the host sees it: which queue, and which of its requests.
    static Tag tag_of(unsigned queue, std::uint32_t tag) { return Tag(queue << 16 | tag); }
    static unsigned queue_of(Tag tag) { return tag.raw >> 16; }
    static std::uint32_t own_part(Tag tag) { return tag.raw & 0xFFFF; }
};

}  // namespace caisson::block::backend
