// xenstored: the store that every domain of the local hypervisor sees, with Xen's permissions, watches, transactions
// and quotas. It does no input or output and reads no clock; see xenstore_socket.h for the sockets.
//
// Threads: one. Time is a parameter: any monotonic clock, the same for all calls.
// Trust: Dom0 is trusted and exempt from quotas; every byte of every other domain is hostile. A client that breaks the
// protocol loses its connection, not its domain (XSA-325).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "domains/hypervisor/xenstore_connection.h"
#include "domains/hypervisor/xenstore_domains.h"
#include "domains/hypervisor/xenstore_transaction.h"
#include "domains/hypervisor/xenstore_tree.h"
#include "domains/hypervisor/xenstore_watch.h"
#include "domains/hypervisor/xenstore_wire.h"
#include "protocols/words.h"

namespace caisson::hypervisor {

class Xenstored {
  public:
    explicit Xenstored(StoreQuota quota = {});
    ~Xenstored();
    Xenstored(const Xenstored&) = delete;
    Xenstored& operator=(const Xenstored&) = delete;

    // ---- domains: called by the owner of the hypervisor's truth ----

    // The domain exists from here on: it may connect and be named in permissions. Nothing is fired. EEXIST while an
    // earlier incarnation of the number lives.
    Status create(DomainId domain, std::uint32_t generation);
    // create() unless that was done, then what INTRODUCE does: @introduceDomain fires.
    Status introduce(DomainId domain, std::uint32_t generation);
    // The domain stopped but exists still: @releaseDomain fires, nothing else.
    void domain_shut_down(DomainId domain);
    // It is gone: its connections break, its watches and transactions end, its nodes and rights are deleted, then
    // @releaseDomain fires. Unknown domains and second calls do nothing (XSA-484). Dom0 does not die.
    void domain_died(DomainId domain);

    // ---- connections: one per process that opened its domain's socket ----

    // `wake` is called when output appeared, input may go on, or the connection broke; it may note that and change poll
    // interests, but must not call the store. The connection stays until disconnect(), also when broken.
    Result<StoreConnection*> connect(DomainId domain, std::function<void()> wake = {});
    // Ends its watches and transactions and destroys it. Not from within `wake`.
    void disconnect(StoreConnection* connection);

    // ---- time ----

    // Once per turn of the owner's loop, after its descriptors: gives every domain its share of work anew and goes on
    // with who waited for it, lets write credits grow, expires unread events.
    void tick(StoreTime now);
    // When tick() has something to do next, if ever.
    std::optional<StoreTime> next_tick() const;

    // ---- the broker's own access, as Dom0: absolute paths; watches fire as for any client ----

    Status write(std::string_view path, std::string_view value);  // creates parents, as XS_WRITE does
    Result<std::string> read(std::string_view path);              // ENOENT when not there
    Status remove(std::string_view path);                         // with all below it
    // Text as in xenstore-chmod: {"n0", "r5"}.
    Status set_permissions(std::string_view path, const std::vector<std::string>& permissions);

    // ---- looking in ----

    const StoreTree& tree() const { return tree_; }
    const StoreQuota& quota() const { return quota_; }
    std::size_t watches(DomainId domain) const;
    std::size_t transactions(DomainId domain) const;
    std::size_t memory(DomainId domain) const;  // bytes the domain makes the store hold
    // Every counter equals what a recount of the real containers gives. For tests and fuzzing.
    bool exact() const;

  private:
    friend class StoreConnection;
    friend class StoreRequest;

    void fire(const std::vector<Change>& changes);
    void fire_special(std::string_view path);
    void deliver(const Watch& watch, std::string_view path);
    void run(StoreConnection& connection);        // serves what is buffered while the connection may go on
    void run_waiting(StoreDomain& domain);        // its other connections, after one of them made room
    void clear(StoreConnection& connection);      // its watches and transactions
    void break_off(StoreConnection& connection);  // clear, and take no further byte
    void withdraw(StoreDomain& domain);           // all a domain has in the store, except its record
    std::int64_t memory_left(const StoreDomain& domain) const;
    void observe(StoreTime now);

    StoreQuota quota_;
    StoreTree tree_;
    WatchTable watches_;
    StoreDomains domains_;
    std::map<std::uint64_t, std::unique_ptr<StoreConnection>> connections_;
    std::uint64_t next_connection_ = 1;
    std::size_t open_transactions_ = 0;
    StoreTime now_{0};
};

}  // namespace caisson::hypervisor
