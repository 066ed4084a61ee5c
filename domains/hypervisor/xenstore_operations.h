// What clients do to the tree, written once for the tree and for transactions.
//
// Every access to a node passes reach(), which asks rights(): no node and no operation has a check of its own
// (XSA-353). An operation looks at everything it will change and counts everything it will need before it changes
// anything, so a refusal leaves nothing half done (XSA-414).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "domains/hypervisor/xenstore_domains.h"
#include "domains/hypervisor/xenstore_tree.h"

namespace caisson::hypervisor {

// What the operation may add on behalf of its domain. The default is Dom0's: no limit.
struct StoreAllowance {
    std::int64_t nodes = std::numeric_limits<std::int64_t>::max();
    std::int64_t bytes = std::numeric_limits<std::int64_t>::max();
    std::size_t node_size = std::numeric_limits<std::size_t>::max();
    std::size_t permissions = std::numeric_limits<std::size_t>::max();
};

class StoreOperations {
  public:
    StoreOperations(StoreView& view, const Subject& who, StoreAllowance allowance = {})
        : view_(view), who_(who), allowance_(allowance) {}

    // Paths are canonical. ENOENT is told only to those who may look at where the node would be, else it is EACCES.
    Result<std::string> read(std::string_view path);
    Result<Permissions> permissions(std::string_view path);
    Result<NodeRef> directory(std::string_view path);
    Status write(std::string_view path, std::string_view value);
    Status mkdir(std::string_view path);
    Status remove(std::string_view path);
    Status set_permissions(std::string_view path, Permissions permissions);

    // What watches are to be told.
    const std::vector<Change>& changes() const { return changes_; }

  private:
    enum class Need : std::uint8_t { read, write, own };
    Result<NodeRef> reach(std::string_view path, Need need);  // null: no such node, and the caller may know it
    Status create(std::string_view path, std::string_view value);
    Permissions inherited(const Node& parent) const;
    void report(std::string_view path, std::vector<Permissions> readers);

    StoreView& view_;
    const Subject& who_;
    const StoreAllowance allowance_;
    std::vector<Change> changes_;
};

}  // namespace caisson::hypervisor
