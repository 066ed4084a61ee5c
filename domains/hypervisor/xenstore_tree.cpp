#include "domains/hypervisor/xenstore_tree.h"

#include <algorithm>
#include <utility>

namespace caisson::hypervisor {

namespace {

std::int64_t weight(std::string_view path, const Node& node) {
    return static_cast<std::int64_t>(path.size() + node.size());
}

}  // namespace

// ---- StoreView: every change of a node goes through here, so accounting has one place -----------------------------

void StoreView::charge(DomainKey who, std::int64_t nodes, std::int64_t bytes) {
    const auto entry = usage_.try_emplace(who).first;
    entry->second.nodes += nodes;
    entry->second.bytes += bytes;
    if (entry->second == Usage{}) usage_.erase(entry);
}

Usage StoreView::usage(DomainKey who) const {
    const auto entry = usage_.find(who);
    return entry == usage_.end() ? Usage{} : entry->second;
}

void StoreView::insert(std::string_view path, Node node) {
    charge(node.owner(), 1, weight(path, node));
    place(path, std::make_shared<Node>(std::move(node)));
    settled(path);
}

void StoreView::erase(std::string_view path) {
    const auto node = find(path);
    if (!node || !*node) return;
    charge((*node)->owner(), -1, -weight(path, **node));
    drop(path);
    settled(path);
}

void StoreView::edit(std::string_view path, const std::function<void(Node&)>& change) {
    Node& node = writable(path);
    charge(node.owner(), -1, -weight(path, node));
    change(node);
    charge(node.owner(), 1, weight(path, node));  // the charge follows the owner at once (XSA-352)
    settled(path);
}

void StoreView::set_value(std::string_view path, std::string value) {
    edit(path, [&](Node& node) { node.value = std::move(value); });
}

void StoreView::set_permissions(std::string_view path, Permissions permissions) {
    edit(path, [&](Node& node) { node.permissions = std::move(permissions); });
}

void StoreView::add_child(std::string_view path, std::string_view name) {
    edit(path, [&](Node& node) {
        if (node.children.emplace(name).second) node.names += name.size() + 1;
    });
}

void StoreView::remove_child(std::string_view path, std::string_view name) {
    edit(path, [&](Node& node) {
        const auto child = node.children.find(name);
        if (child == node.children.end()) return;
        node.names -= name.size() + 1;
        node.children.erase(child);
    });
}

// ---- StoreTree ----------------------------------------------------------------------------------------------------

StoreTree::StoreTree() { insert("/", Node{.permissions = {{.whom = {control_domain, 0}, .access = Access::none}}}); }

NodeRef StoreTree::pin(std::string_view path) const {
    const auto node = nodes_.find(path);
    return node == nodes_.end() ? nullptr : node->second;
}

std::uint64_t StoreTree::generation_of(std::string_view path) const {
    const auto node = nodes_.find(path);
    return node == nodes_.end() ? 0 : node->second->generation;
}

Node& StoreTree::writable(std::string_view path) {
    auto& node = nodes_.find(path)->second;
    // Somebody (a transaction) remembers the node as it is: leave that to him.
    if (node.use_count() > 1) node = std::make_shared<Node>(*node);
    node->generation = next_generation();
    return *node;
}

void StoreTree::place(std::string_view path, std::shared_ptr<Node> node) {
    node->generation = next_generation();
    nodes_.insert_or_assign(std::string(path), std::move(node));
}

void StoreTree::drop(std::string_view path) {
    const auto node = nodes_.find(path);
    if (node != nodes_.end()) nodes_.erase(node);
}

void StoreTree::replace(std::string_view path, std::shared_ptr<Node> node) {
    if (const NodeRef old = pin(path)) charge(old->owner(), -1, -weight(path, *old));
    if (!node) return drop(path);
    charge(node->owner(), 1, weight(path, *node));
    place(path, std::move(node));
}

std::vector<std::string> StoreTree::subtree(std::string_view top) const {
    std::vector<std::string> found;
    if (pin(top)) found.emplace_back(top);
    for (std::size_t next = 0; next < found.size(); ++next) {
        const NodeRef node = pin(found[next]);
        for (const std::string& name : node->children) found.push_back(child_path(found[next], name));
    }
    return found;
}

std::vector<Change> StoreTree::forget(DomainKey dead) {
    std::vector<std::string> owned, named;
    for (const auto& [path, node] : nodes_) {
        if (path != "/" && node->owner() == dead)
            owned.push_back(path);
        else if (std::ranges::any_of(node->permissions, [&](const Permission& p) { return p.whom == dead; }))
            named.push_back(path);
    }
    std::vector<Change> changes;
    std::ranges::sort(owned);
    for (const std::string& top : owned) {
        if (!pin(top)) continue;  // went with its parent
        for (const std::string& path : subtree(top)) {
            changes.push_back({.path = path,
                               .reach = path == top ? Reach::below : Reach::exact,
                               .readers = {pin(path)->permissions, pin(parent_path(path))->permissions}});
        }
        for (const std::string& path : subtree(top)) erase(path);
        remove_child(parent_path(top), leaf_name(top));
    }
    for (const std::string& path : named) {
        const NodeRef node = pin(path);
        if (!node) continue;
        Permissions kept = node->permissions;
        if (kept.front().whom == dead)
            kept.front() = {.whom = {control_domain, 0}, .access = Access::none};  // only "/"
        std::erase_if(kept, [&](const Permission& p) { return p.whom == dead; });
        set_permissions(path, std::move(kept));
    }
    return changes;
}

bool StoreTree::exact() const {
    std::map<DomainKey, Usage> recount;
    for (const auto& [path, node] : nodes_) {
        Usage& usage = recount[node->owner()];
        usage.nodes += 1;
        usage.bytes += weight(path, *node);
        std::size_t names = 0;
        for (const std::string& name : node->children) {
            names += name.size() + 1;
            if (!pin(child_path(path, name))) return false;
        }
        if (names != node->names) return false;
        if (path == "/") continue;
        const NodeRef parent = pin(parent_path(path));
        if (!parent || !parent->children.contains(leaf_name(path))) return false;
    }
    return recount == usage_;
}

}  // namespace caisson::hypervisor
