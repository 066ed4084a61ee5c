// The guest's end of a console, for the worker that serves a pty, and for a program that wants a console without one.
//
//     SharedPages pages = TRY(hypervisor.share(backend, 1, Access::read_write));
//     EventChannel channel = TRY(hypervisor.allocate_unbound(backend));
//     TRY(write_keys(directory, Line{.ring_ref = pages.refs()[0], .port = channel.port()}));
//     FrontIndices indices;
//     FrontPort port = FrontPort::create(pages.memory(), channel, indices);
//     port.write(bytes); port.read(bytes);           // when channel.wait_fd() is readable: channel.clear(), then again
//
// Nothing is lost while both sides live: write() takes what fits and says how much. The backend is not trusted: an
// index that cannot be breaks the port for good, and no byte of the page means anything else than a character.
//
// Threads: one. Lifetime: pages, channel and indices outlive the port.
#pragma once

#include "protocols/console.h"
#include "ring/byte_ring.h"
#include "ring/event_channel.h"

namespace caisson::console {

// The private half of both rings. May live in a journal: any value is legal, the rings check them against the page.
struct FrontIndices {
    std::uint32_t produced = 0;  // of the out ring
    std::uint32_t consumed = 0;  // of the in ring
};

class FrontPort {
  public:
    // On a page of zeros.
    static FrontPort create(SharedSpan page, const EventChannel& channel, FrontIndices& indices);
    // On a live page, after a predecessor: shows the backend what `indices` say, and notifies once.
    static FrontPort attach(SharedSpan page, const EventChannel& channel, FrontIndices& indices);

    // How much of `bytes` fitted into the ring; the backend is told.
    Result<std::size_t> write(std::span<const std::byte> bytes);
    Result<std::size_t> room() { return out_.room(); }
    // What was printed and not yet taken by the backend.
    Result<std::size_t> unsent();

    // How much came; the backend is told that there is room again.
    Result<std::size_t> read(std::span<std::byte> to);
    Result<std::size_t> available() { return in_.available(); }

    // Hands at most to.size() bytes to `sink`, which says how many it took; those that it did not take come again. A
    // process that dies in `sink` has delivered each of them at most once.
    template <class Sink>
    Result<std::size_t> read_into(std::span<std::byte> to, Sink&& sink) {
        const std::size_t count = TRY(in_.peek(to));
        if (count == 0) return count;
        in_.take(count);
        std::atomic_signal_fence(std::memory_order_seq_cst);  // die here: they count as delivered
        const std::size_t taken = std::min(static_cast<std::size_t>(sink(to.first(count))), count);
        in_.put_back(count - taken);
        if (taken > 0) in_.publish(), channel_->notify();
        return taken;
    }

  private:
    FrontPort(SharedSpan page, const EventChannel& channel, FrontIndices& indices);
    const EventChannel* channel_;
    ByteProducer out_;
    ByteConsumer in_;
};

}  // namespace caisson::console
