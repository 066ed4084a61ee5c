// One request of one client: from its payload to one reply, and what it makes others hear.
#pragma once

#include <string>
#include <string_view>

#include "domains/hypervisor/xenstore_connection.h"
#include "domains/hypervisor/xenstore_domains.h"
#include "domains/hypervisor/xenstore_operations.h"
#include "domains/hypervisor/xenstore_server.h"
#include "domains/hypervisor/xenstore_transaction.h"
#include "domains/hypervisor/xenstore_wire.h"

namespace caisson::hypervisor {

class StoreRequest {
  public:
    // `payload` stays good while the request is served; nothing made here outlives that (XSA-416).
    StoreRequest(Xenstored& store, StoreConnection& connection, StoreDomain& domain, StoreHeader header,
                 std::string_view payload)
        : store_(store), connection_(connection), domain_(domain), header_(header), payload_(payload) {}

    void serve();

  private:
    using Answer = Result<std::string>;

    Answer answer();
    Answer answer_node();        // operations on nodes, in the tree or in the transaction
    Answer answer_privileged();  // Dom0's

    Result<std::string_view> argument() const;  // the payload as exactly one string
    Result<std::string> path_argument() const;  // ... which is a path
    Result<DomainId> id_argument() const;       // ... which is a domain id
    StoreAllowance allowance() const;
    Answer node_operation(StoreOperations& operations);
    Answer write(StoreOperations& operations);
    Answer set_permissions(StoreOperations& operations);
    Answer directory_part(StoreOperations& operations);
    Result<Permissions> permissions_argument(const std::vector<std::string_view>& strings) const;

    Answer watch();
    void watch_registered();  // after the answer
    Answer unwatch();
    Answer start();
    Answer end();
    Status commit(StoreTransaction& transaction);
    Answer introduce();
    Answer set_target();
    Result<StoreDomain*> domain_argument(std::string_view text) const;

    Xenstored& store_;
    StoreConnection& connection_;
    StoreDomain& domain_;
    const StoreHeader header_;
    const std::string_view payload_;
    StoreTransaction* transaction_ = nullptr;
    std::size_t work_ = 1;  // what it costs: steps of path to look at, nodes to change
    const Watch* registered_ = nullptr;
};

}  // namespace caisson::hypervisor
