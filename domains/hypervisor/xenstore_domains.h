// What the store knows of each domain, and what it may use of the store.
//
// All quotas are per domain, over all its connections, and none is for Dom0. The figures are xenstored's defaults
// (XSA-326, XSA-206); what they count against is outstanding work as much as stored nodes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "domains/hypervisor/xenstore_tree.h"
#include "protocols/words.h"

namespace caisson::hypervisor {

using StoreTime = std::chrono::nanoseconds;  // since any fixed moment

struct StoreQuota {
    std::size_t outstanding = 20;          // requests whose replies are not read yet: then no further one is served
    std::size_t watches = 128;             // E2BIG beyond
    std::size_t transactions = 10;         // ENOSPC
    std::size_t transaction_nodes = 1024;  // ENOSPC, and the transaction fails
    std::size_t nodes = 1000;              // ENOSPC
    std::size_t node_size = 2048;          // ENOSPC; value, permissions and children's names
    std::size_t permissions = 5;           // ENOSPC
    std::int64_t memory = 2560 * 1024;     // ENOMEM; nodes, watches, transactions, unread output
    std::size_t connections = 64;          // ours: on Xen a domain has one ring; 8 KiB of input each
    std::size_t events = 512;              // ours: unread events of a connection that keep their own path
    std::size_t control_events = 8192;     // the same for Dom0, whose stuck clients must not grow without end either
    std::size_t work = 256;                // ours: steps of path and nodes changed between two ticks, about 1 ms
    StoreTime unread_event = std::chrono::seconds(20);  // then the connection breaks
    double write_rate = 200;      // credits per second; writes cost one while others have transactions open
    double write_burst = 10;      // what a domain may save
    double write_reserve = 1000;  // what all save together
};

// The domain as a subject of permissions. With a target (a device model's guest) it has the target's rights, too.
struct Subject {
    DomainKey self;
    std::optional<DomainKey> target = {};
    bool privileged() const { return self.id == control_domain; }
};

// The one place that decides (XSA-353): what `who` may do with a node that has these permissions.
struct Rights {
    bool read = false, write = false, owner = false;
};
Rights rights(const Permissions& permissions, const Subject& who);

struct StoreDomain {
    Subject subject;
    bool introduced = false;
    bool shut_down = false;

    std::size_t connections = 0;
    std::size_t watches = 0;
    std::size_t transactions = 0;
    std::size_t outstanding = 0;
    std::int64_t memory = 0;  // of watches, transactions and unread output; nodes are counted in the tree
    double credit = 0;
    std::size_t work = 0;  // since the last tick

    bool limited() const { return !subject.privileged(); }
};

class StoreDomains {
  public:
    explicit StoreDomains(const StoreQuota& quota);

    StoreDomain* find(DomainId domain);
    const StoreDomain* find(DomainId domain) const;
    bool alive(DomainKey who) const;
    // Null while an earlier incarnation of the number lives.
    StoreDomain* create(DomainKey who);
    void erase(DomainId domain);  // and whatever points to it as a target (XSA-233)
    std::optional<DomainKey> current(DomainId domain) const;

    // Write credits (XSA-206). A write that may conflict with somebody's open transaction costs one credit, of the
    // domain's own or else of the common reserve; a domain in debt waits, the others do not.
    void grow(StoreTime elapsed);
    void pay(StoreDomain& domain);
    // How long until the domain may go on; zero: now.
    StoreTime wait(const StoreDomain& domain) const;

    std::map<DomainId, StoreDomain>& all() { return domains_; }
    const std::map<DomainId, StoreDomain>& all() const { return domains_; }

  private:
    const StoreQuota& quota_;
    std::map<DomainId, StoreDomain> domains_;
    double reserve_;
};

}  // namespace caisson::hypervisor
