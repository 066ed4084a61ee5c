// An rx ring's frontend half: every slot always has a posted buffer, a page the backend may write; filled pages go from
// there to the attachment in one system call.
//
// Slot n, id n and page n belong together for ever: netif wants a response in its request's slot, so a page is free
// exactly when its slot is. The pages hold nothing else, ever (XSA-403). Whatever the backend writes into them,
// whenever, is frame data: headers that we look at are copied first, and the copy is what goes on (XSA-155, XSA-423).
//
// Threads: the device's.
#pragma once

#include "frontends/net/attachment.h"
#include "frontends/net/journal.h"
#include "protocols/net_packets.h"
#include "ring/hypervisor.h"
#include "ring/stats.h"

namespace caisson::net::frontend {

class Receiver {
  public:
    struct Setup {
        Hypervisor& hypervisor;
        DomainId peer{};
        SharedSpan ring;
        RxJournal& journal;
        QueueStats& stats;
    };
    // New pages, all posted; or a predecessor's pages and posted buffers as they are.
    static Result<Receiver> make(Setup setup);

    struct Received {
        unsigned responses = 0;
        bool notify = false;
    };
    // Up to `budget` responses to the attachment, and their buffers back to the backend. An error: the backend broke
    // the rules.
    Result<Received> receive(const FramePort& port, unsigned budget);

    // Wakes for the next frame. True when there is one already.
    Result<bool> arm() { return ring_.arm(); }
    unsigned posted() const { return ring_.outstanding(); }

  private:
    Receiver(const Setup& setup, FrontRing<RxRing> ring) : setup_(setup), ring_(ring) {}
    Status share_arena();
    Result<bool> take(const RxResponse& response, std::uint32_t index);
    void deliver(const FramePort& port);
    bool post();
    SharedSpan bytes_of(const RxSlice& slice) const;

    Setup setup_;
    FrontRing<RxRing> ring_;
    SharedPages arena_;
    RxAssembler packet_;
};

}  // namespace caisson::net::frontend
