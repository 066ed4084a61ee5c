// A transaction: a private picture of the nodes it touched, put in place as a whole or not at all.
//
// The first look at a node remembers the node as it was (or that there was none); the node is looked at there from then
// on. Conflict: a remembered node is not in the tree as it was remembered, whatever the transaction did with it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "domains/hypervisor/xenstore_tree.h"

namespace caisson::hypervisor {

class StoreTransaction final : public StoreView {
  public:
    // Remembers at most `limit` nodes.
    StoreTransaction(StoreTree& tree, std::size_t limit) : tree_(tree), limit_(limit) {}

    Result<NodeRef> find(std::string_view path) override;
    NodeRef glance(std::string_view path) const override;
    // Watches hear of it when the transaction is committed.
    void note(const std::vector<Change>& changes);

    // An operation in it went wrong half-way for want of space: it cannot be committed any more (XSA-415), and holds
    // nothing from now on.
    void fail();
    bool failed() const { return failed_; }

    std::int64_t memory() const { return memory_; }  // what its picture takes: nodes as they were and as they became
    const std::map<DomainKey, Usage>& differences() const { return usage_; }

    bool conflicts() const;
    // Everyone whom the permissions of changed nodes name; the caller asks whether they live still.
    std::vector<DomainKey> names() const;
    // Puts everything in place and returns what watches are to be told. Only after !failed() && !conflicts().
    std::vector<Change> commit();

    bool exact() const;  // memory and differences, recomputed

  protected:
    Node& writable(std::string_view path) override;
    void place(std::string_view path, std::shared_ptr<Node> node) override;
    void drop(std::string_view path) override;
    void settled(std::string_view path) override;

  private:
    struct Shadow {
        NodeRef base;               // as it was at the first look
        std::shared_ptr<Node> own;  // the transaction's node, once changed
        bool changed = false;       // own (or its absence) replaces base
        Reach reach = Reach::none;
        std::size_t order = 0;     // of the first change that watches are to be told
        std::int64_t counted = 0;  // what of memory_ is this one's
        const Node* node() const { return changed ? own.get() : base.get(); }
    };
    static std::int64_t weight(std::string_view path, const Shadow& shadow);
    Shadow& shadow(std::string_view path);  // remembers the node if need be
    void release();

    StoreTree& tree_;
    const std::size_t limit_;
    std::map<std::string, Shadow, std::less<>> shadows_;
    std::int64_t memory_ = 0;
    std::size_t noted_ = 0;
    bool failed_ = false;
};

}  // namespace caisson::hypervisor
