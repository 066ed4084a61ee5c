// The store itself: nodes by path, who may touch them, and what each domain owns.
//
// The tree is a flat map from path to node, so nothing here recurses, whatever shape a domain gives it (XSA-418). A
// domain is named by its DomainKey: the rights and nodes of a dead domain never pass to the next one with its number
// (XSA-322, XSA-417). Accounting is kept where nodes are kept, and exact() proves it from scratch.
//
// StoreView is what an operation sees: the tree, or a transaction's picture of it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "domains/hypervisor/identity.h"
#include "domains/hypervisor/xenstore_wire.h"
#include "protocols/words.h"

namespace caisson::hypervisor {

// Stands in a permission for a domain that did not exist when it was set: whoever gets the number gets no right.
inline constexpr std::uint32_t no_generation = 0xffffffff;

struct Permission {
    DomainKey whom;
    Access access = Access::none;
    bool operator==(const Permission&) const = default;
};
// The first entry names the owner and, as its access, what all those without an entry may do (docs/misc/xenstore.txt).
using Permissions = std::vector<Permission>;

struct Node {
    std::string value;
    Permissions permissions;
    std::set<std::string, std::less<>> children;  // names, not paths
    std::size_t names = 0;                        // bytes of the children's names, each with its NUL
    std::uint64_t generation = 0;                 // unique per change of the node, its value, permissions or children

    // What Xen counts against the 2 KiB of a node: its record with header, permissions, value and children's names.
    std::size_t size() const { return 24 + 8 * permissions.size() + value.size() + names; }
    DomainKey owner() const { return permissions.front().whom; }
};
using NodeRef = std::shared_ptr<const Node>;

struct Usage {
    std::int64_t nodes = 0;
    std::int64_t bytes = 0;  // of paths and node records
    bool operator==(const Usage&) const = default;
};

// How a change is told to watches: an exact one only to those on the very path (a node deleted with its parent).
enum class Reach : std::uint8_t { none, exact, below };
struct Change {
    std::string path;
    Reach reach = Reach::below;
    // Who may hear of it (XSA-115): those who can read a node with one of these permissions, that is the node's before
    // and after, and its parent's.
    std::vector<Permissions> readers = {};
};

class StoreView {
  public:
    virtual ~StoreView() = default;

    // Null: there is no such node. Pointers stay good until the next call of a member that changes the view. Only a
    // transaction can fail here: when it may not remember another node.
    virtual Result<NodeRef> find(std::string_view path) = 0;
    // The same without remembering it: for what the operation's result does not depend on.
    virtual NodeRef glance(std::string_view path) const = 0;

    // Only for nodes that find() was asked for in the same operation: they must be there (for insert: must not be, but
    // the parent must). Let go of the NodeRef first, or the node is copied.
    void insert(std::string_view path, Node node);
    void erase(std::string_view path);  // its children must be gone, or be erased by the same operation
    void set_value(std::string_view path, std::string value);
    void set_permissions(std::string_view path, Permissions permissions);
    void add_child(std::string_view path, std::string_view name);
    void remove_child(std::string_view path, std::string_view name);

    // What `who` owns: in the tree absolute, in a transaction the difference it makes (may be negative, XSA-440).
    Usage usage(DomainKey who) const;

  protected:
    virtual Node& writable(std::string_view path) = 0;  // private to this view, with a new generation
    virtual void place(std::string_view path, std::shared_ptr<Node> node) = 0;
    virtual void drop(std::string_view path) = 0;
    virtual void settled(std::string_view) {}  // after each change, when the node has its new size
    void charge(DomainKey who, std::int64_t nodes, std::int64_t bytes);

    std::map<DomainKey, Usage> usage_;

  private:
    void edit(std::string_view path, const std::function<void(Node&)>& change);
};

class StoreTree final : public StoreView {
  public:
    StoreTree();  // only "/", owned by Dom0, open to nobody else

    Result<NodeRef> find(std::string_view path) override { return pin(path); }
    NodeRef glance(std::string_view path) const override { return pin(path); }
    NodeRef pin(std::string_view path) const;
    std::uint64_t generation_of(std::string_view path) const;  // 0: no such node
    std::size_t size() const { return nodes_.size(); }
    std::uint64_t next_generation() { return ++generation_; }

    // Puts a transaction's result in place; null removes.
    void replace(std::string_view path, std::shared_ptr<Node> node);

    // Paths below `top` and itself, parents before children.
    std::vector<std::string> subtree(std::string_view top) const;

    // What the death of a domain means for the tree: its nodes are deleted with all that is below them, its entries
    // leave all permission lists. Never re-owned (XSA-419). Returns what watches are to be told.
    std::vector<Change> forget(DomainKey dead);

    // Every count recomputed from the nodes equals the one kept; every child has its parent and the reverse.
    bool exact() const;

  protected:
    Node& writable(std::string_view path) override;
    void place(std::string_view path, std::shared_ptr<Node> node) override;
    void drop(std::string_view path) override;

  private:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };
    std::unordered_map<std::string, std::shared_ptr<Node>, Hash, std::equal_to<>> nodes_;
    std::uint64_t generation_ = 0;
};

}  // namespace caisson::hypervisor
