#include "domains/hypervisor/xenstore_transaction.h"

#include <algorithm>
#include <utility>

namespace caisson::hypervisor {

// A remembered node counts in full though it may be shared with the tree: it stays when the tree's is replaced.
std::int64_t StoreTransaction::weight(std::string_view path, const Shadow& shadow) {
    return static_cast<std::int64_t>(sizeof(Shadow) + path.size() + (shadow.base ? shadow.base->size() : 0) +
                                     (shadow.own ? shadow.own->size() : 0));
}

Result<NodeRef> StoreTransaction::find(std::string_view path) {
    if (failed_) return refuse(ENOMEM, "failed transaction");
    if (!shadows_.contains(path) && shadows_.size() >= limit_) return refuse(ENOSPC, "nodes of a transaction");
    const Shadow& known = shadow(path);
    return known.changed ? NodeRef(known.own) : known.base;
}

NodeRef StoreTransaction::glance(std::string_view path) const {
    const auto known = shadows_.find(path);
    if (known == shadows_.end()) return tree_.pin(path);
    return known->second.changed ? NodeRef(known->second.own) : known->second.base;
}

StoreTransaction::Shadow& StoreTransaction::shadow(std::string_view path) {
    const auto known = shadows_.find(path);
    if (known != shadows_.end()) return known->second;
    Shadow& fresh = shadows_.emplace(std::string(path), Shadow{.base = tree_.pin(path)}).first->second;
    memory_ += fresh.counted = weight(path, fresh);
    return fresh;
}

void StoreTransaction::settled(std::string_view path) {
    Shadow& changed = shadow(path);
    memory_ -= changed.counted;
    memory_ += changed.counted = weight(path, changed);
}

Node& StoreTransaction::writable(std::string_view path) {
    Shadow& changed = shadow(path);
    if (!changed.changed || changed.own.use_count() > 1) changed.own = std::make_shared<Node>(*changed.node());
    changed.changed = true;
    changed.own->generation = tree_.next_generation();
    return *changed.own;
}

void StoreTransaction::place(std::string_view path, std::shared_ptr<Node> node) {
    Shadow& changed = shadow(path);
    node->generation = tree_.next_generation();
    changed.own = std::move(node);
    changed.changed = true;
}

void StoreTransaction::drop(std::string_view path) {
    Shadow& changed = shadow(path);
    changed.own = nullptr;
    changed.changed = true;
}

void StoreTransaction::note(const std::vector<Change>& changes) {
    for (const Change& change : changes) {
        const auto known = shadows_.find(change.path);
        if (known == shadows_.end()) continue;
        Shadow& changed = known->second;
        if (changed.reach == Reach::none) changed.order = ++noted_;
        changed.reach = std::max(changed.reach, change.reach);
    }
}

void StoreTransaction::fail() {
    failed_ = true;
    release();
}

void StoreTransaction::release() {
    shadows_.clear();
    usage_.clear();
    memory_ = 0;
}

bool StoreTransaction::conflicts() const {
    return std::ranges::any_of(shadows_, [&](const auto& entry) {
        const NodeRef& base = entry.second.base;
        return tree_.generation_of(entry.first) != (base ? base->generation : 0);
    });
}

std::vector<DomainKey> StoreTransaction::names() const {
    std::vector<DomainKey> names;
    for (const auto& [path, shadow] : shadows_) {
        if (!shadow.own) continue;
        for (const Permission& entry : shadow.own->permissions) names.push_back(entry.whom);
    }
    return names;
}

std::vector<Change> StoreTransaction::commit() {
    std::vector<std::pair<std::size_t, Change>> noted;
    for (const auto& [path, shadow] : shadows_) {
        const Node* after = shadow.node();
        if (shadow.reach == Reach::none || (!shadow.base && !after)) continue;  // made and deleted again: nothing was
        Change change{.path = path, .reach = shadow.reach};
        if (shadow.base) change.readers.push_back(shadow.base->permissions);
        if (after) change.readers.push_back(after->permissions);
        const auto above = shadows_.find(parent_path(path));
        const NodeRef parent = above == shadows_.end()
                                   ? tree_.pin(parent_path(path))
                                   : (above->second.base ? above->second.base : NodeRef(above->second.own));
        if (parent) change.readers.push_back(parent->permissions);
        noted.emplace_back(shadow.order, std::move(change));
    }
    for (auto& [path, shadow] : shadows_)
        if (shadow.changed && (shadow.base || shadow.own)) tree_.replace(path, std::move(shadow.own));
    release();
    std::ranges::sort(noted, {}, &std::pair<std::size_t, Change>::first);
    std::vector<Change> changes;
    for (auto& [order, change] : noted) changes.push_back(std::move(change));
    return changes;
}

bool StoreTransaction::exact() const {
    std::int64_t memory = 0;
    std::map<DomainKey, Usage> recount;
    const auto count = [&](const std::string& path, const Node* node, std::int64_t sign) {
        if (!node) return;
        Usage& usage = recount[node->owner()];
        usage.nodes += sign;
        usage.bytes += sign * static_cast<std::int64_t>(path.size() + node->size());
    };
    for (const auto& [path, shadow] : shadows_) {
        memory += weight(path, shadow);
        count(path, shadow.base.get(), -1);
        count(path, shadow.node(), 1);
    }
    std::erase_if(recount, [](const auto& entry) { return entry.second == Usage{}; });
    return memory == memory_ && recount == usage_;
}

}  // namespace caisson::hypervisor
