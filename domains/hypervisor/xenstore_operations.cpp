#include "domains/hypervisor/xenstore_operations.h"

#include <algorithm>
#include <utility>

namespace caisson::hypervisor {

Result<NodeRef> StoreOperations::reach(std::string_view path, Need need) {
    const auto granted = [&](const Node& node) {
        const Rights have = rights(node.permissions, who_);
        return need == Need::read ? have.read : need == Need::write ? have.write : have.owner;
    };
    NodeRef node = TRY(view_.find(path));
    if (node) {
        if (!granted(*node)) return refuse(EACCES, "node");
        return node;
    }
    // Whether something exists is itself a secret: the nearest directory that does exist decides.
    for (std::string_view above = parent_path(path); !node; above = parent_path(above)) {
        node = TRY(view_.find(above));
        if (above == "/") break;
    }
    if (!node || !granted(*node)) return refuse(EACCES, "parent");
    return NodeRef{};
}

Result<std::string> StoreOperations::read(std::string_view path) {
    const NodeRef node = TRY(reach(path, Need::read));
    if (!node) return refuse(ENOENT, "node");
    return node->value;
}

Result<Permissions> StoreOperations::permissions(std::string_view path) {
    const NodeRef node = TRY(reach(path, Need::read));
    if (!node) return refuse(ENOENT, "node");
    return node->permissions;
}

Result<NodeRef> StoreOperations::directory(std::string_view path) {
    NodeRef node = TRY(reach(path, Need::read));
    if (!node) return refuse(ENOENT, "node");
    return node;
}

// A new node has its parent's permissions, except that an unprivileged domain owns what it makes.
Permissions StoreOperations::inherited(const Node& parent) const {
    Permissions permissions = parent.permissions;
    if (!who_.privileged()) permissions.front().whom = who_.self;
    return permissions;
}

Status StoreOperations::create(std::string_view path, std::string_view value) {
    std::vector<std::string_view> missing;  // deepest first
    std::string_view above = path;
    NodeRef parent;
    while (!parent) {
        missing.push_back(above);
        above = parent_path(above);
        parent = TRY(view_.find(above));
        if (above == "/" && !parent) return refuse(EIO, "no root");
    }
    const Permissions permissions = inherited(*parent);
    const auto top_name = leaf_name(missing.back());
    if (parent->size() + top_name.size() + 1 > allowance_.node_size) return refuse(ENOSPC, "size of the parent");
    parent.reset();

    std::int64_t bytes = static_cast<std::int64_t>(top_name.size()) + 1;
    for (std::size_t i = 0; i < missing.size(); ++i) {
        Node node{.permissions = permissions};
        const std::size_t content = i == 0 ? value.size() : leaf_name(missing[i - 1]).size() + 1;
        if (node.size() + content > allowance_.node_size) return refuse(ENOSPC, "size of the node");
        bytes += static_cast<std::int64_t>(missing[i].size() + node.size() + content);
    }
    if (std::cmp_greater(missing.size(), allowance_.nodes)) return refuse(ENOSPC, "nodes");
    if (bytes > allowance_.bytes) return refuse(ENOMEM, "memory");

    for (std::size_t i = missing.size(); i-- > 0;) {
        view_.insert(missing[i],
                     Node{.value = i == 0 ? std::string(value) : std::string(), .permissions = permissions});
        view_.add_child(parent_path(missing[i]), leaf_name(missing[i]));
    }
    report(path, {permissions});
    return {};
}

// A change of `path`, seen by its readers and those of its parent as it is now.
void StoreOperations::report(std::string_view path, std::vector<Permissions> readers) {
    if (const NodeRef parent = view_.glance(parent_path(path))) readers.push_back(parent->permissions);
    changes_.push_back({.path = std::string(path), .reach = Reach::below, .readers = std::move(readers)});
}

Status StoreOperations::write(std::string_view path, std::string_view value) {
    NodeRef node = TRY(reach(path, Need::write));
    if (!node) return create(path, value);
    if (node->size() - node->value.size() + value.size() > allowance_.node_size)
        return refuse(ENOSPC, "size of the node");
    if (value.size() > node->value.size() &&
        std::cmp_greater(value.size() - node->value.size(), std::max<std::int64_t>(allowance_.bytes, 0)))
        return refuse(ENOMEM, "memory");
    report(path, {node->permissions});
    node.reset();
    view_.set_value(path, std::string(value));
    return {};
}

Status StoreOperations::mkdir(std::string_view path) {
    if (TRY(reach(path, Need::write))) return {};
    return create(path, "");
}

Status StoreOperations::remove(std::string_view path) {
    if (!TRY(reach(path, Need::write))) {
        // What is not there is gone already, provided that there is a place where it could have been.
        if (!TRY(view_.find(parent_path(path)))) return refuse(ENOENT, "parent");
        return {};
    }
    if (path == "/") return refuse(EINVAL, "root");

    std::vector<Change> gone;  // parents before children; also the work list, so that depth is no recursion
    gone.push_back({.path = std::string(path)});
    for (std::size_t next = 0; next < gone.size(); ++next) {
        const std::string here = gone[next].path;
        const NodeRef node = TRY(view_.find(here)), parent = TRY(view_.find(parent_path(here)));
        // A transaction that has lost already may see a child without its parent, or the reverse.
        if (!node || !parent) return refuse(EAGAIN, "conflict");
        gone[next].readers = {node->permissions, parent->permissions};
        for (const std::string& name : node->children)
            gone.push_back({.path = child_path(here, name), .reach = Reach::exact});
    }
    for (std::size_t i = gone.size(); i-- > 0;) view_.erase(gone[i].path);
    view_.remove_child(parent_path(path), leaf_name(path));
    changes_.insert(changes_.end(), std::make_move_iterator(gone.begin()), std::make_move_iterator(gone.end()));
    return {};
}

Status StoreOperations::set_permissions(std::string_view path, Permissions permissions) {
    if (permissions.empty()) return refuse(EINVAL, "permissions");
    if (permissions.size() > allowance_.permissions) return refuse(ENOSPC, "permissions");
    NodeRef node = TRY(reach(path, Need::own));
    if (!node) return refuse(ENOENT, "node");
    // Else a domain could give its quota away (XSA-352).
    if (!who_.privileged() && permissions.front().whom != node->owner()) return refuse(EPERM, "owner");
    if (node->size() - 8 * node->permissions.size() + 8 * permissions.size() > allowance_.node_size)
        return refuse(ENOSPC, "size of the node");
    report(path, {node->permissions, permissions});
    node.reset();
    view_.set_permissions(path, std::move(permissions));
    return {};
}

}  // namespace caisson::hypervisor
