// Asks the backend over the control ring to spread what it sends over our queues by a Toeplitz hash: one request after
// the other, none before the last one is answered. A backend that refuses is left with its own way of spreading.
// Source: xen/io/netif.h, "Control messages".
#pragma once

#include "frontends/net/journal.h"
#include "protocols/net_control.h"
#include "ring/hypervisor.h"

namespace caisson::net::frontend {

class HashClient {
  public:
    struct Setup {
        Hypervisor& hypervisor;
        DomainId peer{};
        SharedSpan ring;
        ControlJournal& journal;
        unsigned queues = 1;
    };
    // After a predecessor's death: waits for the answer that it was owed, then asks everything again.
    static Result<HashClient> make(Setup setup);

    // Takes answers and asks on. `notify` when the backend wants it. True when something was done.
    Result<bool> poll(bool& notify);
    Result<bool> arm() { return ring_.arm(); }
    // The backend refused one of the requests, or agreed to all.
    bool done() const { return setup_.journal.done != 0; }
    bool agreed() const { return agreed_; }

  private:
    HashClient(const Setup& setup, FrontRing<ControlRing> ring) : setup_(setup), ring_(ring) {}
    Status share_tables();
    Status answer(const ControlResponse& response);
    void finish(bool agreed);
    ControlType next_type() const;
    ControlRequest next_request() const;

    Setup setup_;
    FrontRing<ControlRing> ring_;
    SharedPages tables_;  // the key, and the mapping; the backend may only read them
    unsigned step_ = 0;
    bool agreed_ = false;
    bool giving_up_ = false;  // asked for one thing too many: the hash is switched off again
    bool owed_ = false;       // an answer to a predecessor's request
};

}  // namespace caisson::net::frontend
