#include "domains/hypervisor/xenstore_request.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace caisson::hypervisor {

namespace {

constexpr char domid_self_text[] = "32752";                                      // DOMID_SELF of xen.h
constexpr std::string_view domid_self(domid_self_text, sizeof domid_self_text);  // with its NUL

std::string terminated(std::string text) {
    text.push_back('\0');
    return text;
}

}  // namespace

// The one place where an error becomes a wire status.
void StoreRequest::serve() {
    work_ += static_cast<std::size_t>(std::ranges::count(payload_, '/'));
    Answer answer = this->answer();
    domain_.work += work_;
    if (answer && answer->size() > store_payload_max) answer = refuse(E2BIG, "reply");  // XSA-72
    if (answer)
        connection_.reply(header_, static_cast<StoreOp>(header_.type), *answer);
    else
        connection_.reply(header_, StoreOp::error, terminated(std::string(store_error_name(answer.error().err))));
    // The first event of a watch comes right after the answer to its registration (docs/misc/xenstore.txt).
    if (answer && header_.type == static_cast<std::uint32_t>(StoreOp::watch)) watch_registered();
}

StoreRequest::Answer StoreRequest::answer() {
    if (header_.transaction != 0) {
        const auto known = connection_.transactions_.find(header_.transaction);
        if (known == connection_.transactions_.end()) return refuse(ENOENT, "transaction");
        transaction_ = known->second.get();
    }
    switch (static_cast<StoreOp>(header_.type)) {
        case StoreOp::directory:
        case StoreOp::directory_part:
        case StoreOp::read:
        case StoreOp::get_perms:
        case StoreOp::write:
        case StoreOp::mkdir:
        case StoreOp::rm:
        case StoreOp::set_perms: return answer_node();
        case StoreOp::watch: return watch();
        case StoreOp::unwatch: return unwatch();
        case StoreOp::transaction_start: return start();
        case StoreOp::transaction_end: return end();
        case StoreOp::get_domain_path: return terminated(domain_path(TRY(id_argument())));
        case StoreOp::is_domain_introduced: {
            const bool self = payload_ == domid_self;
            const StoreDomain* asked = self ? &domain_ : store_.domains_.find(TRY(id_argument()));
            return terminated(asked && asked->introduced ? "T" : "F");
        }
        case StoreOp::reset_watches:  // also legal inside a transaction, which it ends (XSA-484)
            store_.clear(connection_);
            return terminated("OK");
        case StoreOp::control:
        case StoreOp::introduce:
        case StoreOp::release:
        case StoreOp::resume:
        case StoreOp::set_target:
            if (domain_.limited()) return refuse(EACCES, "operation");
            return answer_privileged();
        case StoreOp::watch_event:
        case StoreOp::error: break;
    }
    return refuse(ENOSYS, "operation");
}

// ---- nodes --------------------------------------------------------------------------------------------------------

StoreAllowance StoreRequest::allowance() const {
    if (!domain_.limited()) return {};
    const StoreQuota& quota = store_.quota_;
    std::int64_t nodes = store_.tree_.usage(domain_.subject.self).nodes;
    if (transaction_) nodes += transaction_->usage(domain_.subject.self).nodes;
    return {.nodes = static_cast<std::int64_t>(quota.nodes) - nodes,
            .bytes = store_.memory_left(domain_),
            .node_size = quota.node_size,
            .permissions = quota.permissions};
}

StoreRequest::Answer StoreRequest::answer_node() {
    StoreView& view = transaction_ ? static_cast<StoreView&>(*transaction_) : store_.tree_;
    const std::int64_t before = transaction_ ? transaction_->memory() : 0;
    StoreOperations operations(view, domain_.subject, allowance());
    Answer answer = node_operation(operations);
    work_ += operations.changes().size();

    if (!transaction_) {
        if (answer && !operations.changes().empty() && store_.open_transactions_ > 0) store_.domains_.pay(domain_);
        store_.fire(operations.changes());
        return answer;
    }
    if (answer) transaction_->note(operations.changes());
    domain_.memory += transaction_->memory() - before;
    if (answer && domain_.limited() && store_.memory_left(domain_) < 0) answer = refuse(ENOMEM, "memory");
    if (!answer && (answer.error().err == ENOSPC || answer.error().err == ENOMEM)) {
        domain_.memory -= transaction_->memory();
        transaction_->fail();
    }
    return answer;
}

Result<std::string_view> StoreRequest::argument() const {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() != 1) return refuse(EINVAL, "arguments");
    return strings.front();
}

Result<std::string> StoreRequest::path_argument() const {
    const std::string_view path = TRY(argument());
    return canonical_path(path, connection_.who().id);
}

Result<DomainId> StoreRequest::id_argument() const {
    const std::string_view id = TRY(argument());
    return parse_domain(id);
}

StoreRequest::Answer StoreRequest::node_operation(StoreOperations& operations) {
    const auto op = static_cast<StoreOp>(header_.type);
    if (op == StoreOp::directory_part) return directory_part(operations);
    if (op == StoreOp::write) return write(operations);
    if (op == StoreOp::set_perms) return set_permissions(operations);

    const std::string path = TRY(path_argument());
    if (op == StoreOp::read) return operations.read(path);
    if (op == StoreOp::mkdir) TRY(operations.mkdir(path));
    if (op == StoreOp::rm) TRY(operations.remove(path));
    if (op == StoreOp::mkdir || op == StoreOp::rm) return terminated("OK");

    std::string list;
    if (op == StoreOp::get_perms) {
        const Permissions permissions = TRY(operations.permissions(path));
        for (const Permission& entry : permissions) list += terminated(permission_text(entry.whom.id, entry.access));
        return list;
    }
    const NodeRef node = TRY(operations.directory(path));
    if (node->names > store_payload_max) return refuse(E2BIG, "directory");  // the client asks for parts then
    for (const std::string& name : node->children) list += terminated(name);
    return list;
}

StoreRequest::Answer StoreRequest::write(StoreOperations& operations) {
    const auto end = payload_.find('\0');
    if (end == payload_.npos) return refuse(EINVAL, "arguments");
    const std::string path = TRY(canonical_path(payload_.substr(0, end), connection_.who().id));
    TRY(operations.write(path, payload_.substr(end + 1)));
    return terminated("OK");
}

StoreRequest::Answer StoreRequest::set_permissions(StoreOperations& operations) {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() < 2) return refuse(EINVAL, "arguments");
    const std::string path = TRY(canonical_path(strings.front(), connection_.who().id));
    Permissions permissions = TRY(permissions_argument(strings));
    TRY(operations.set_permissions(path, std::move(permissions)));
    return terminated("OK");
}

// "<generation>|<name>|<name>|...", and one more NUL after the last name of the directory. The offset counts bytes of
// the whole list.
StoreRequest::Answer StoreRequest::directory_part(StoreOperations& operations) {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() != 2) return refuse(EINVAL, "arguments");
    std::size_t offset{};
    const std::string_view number = strings[1];
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), offset);
    if (error != std::errc{} || end != number.data() + number.size()) return refuse(EINVAL, "offset");
    const std::string path = TRY(canonical_path(strings[0], connection_.who().id));
    const NodeRef node = TRY(operations.directory(path));
    work_ += node->children.size() / 32;

    std::string part = terminated(std::to_string(node->generation));
    std::size_t at = 0;
    for (const std::string& name : node->children) {
        if (at >= offset) {
            if (part.size() + name.size() + 2 > store_payload_max) return part;
            part += terminated(name);
        }
        at += name.size() + 1;
    }
    return terminated(std::move(part));
}

// A domain that does not exist gets no right, not even later, when it does; it cannot own anything.
Result<Permissions> StoreRequest::permissions_argument(const std::vector<std::string_view>& strings) const {
    if (domain_.limited() && strings.size() - 1 > store_.quota_.permissions) return refuse(ENOSPC, "permissions");
    Permissions permissions;
    for (std::size_t i = 1; i < strings.size(); ++i) {
        const PermissionText entry = TRY(parse_permission(strings[i]));
        const auto whom = store_.domains_.current(entry.domain);
        if (i == 1 && !whom) return refuse(ENOENT, "owner");
        permissions.push_back({.whom = whom.value_or(DomainKey{entry.domain, no_generation}), .access = entry.access});
    }
    return permissions;
}

// ---- watches ------------------------------------------------------------------------------------------------------

StoreRequest::Answer StoreRequest::watch() {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() != 2) return refuse(EINVAL, "arguments");
    const bool special = strings[0].starts_with('@');
    if (special && strings[0].size() > store_relative_path_max) return refuse(EINVAL, "path too long");
    const DomainId self = connection_.who().id;
    Watch watch{.connection = connection_.id_,
                .path = special ? std::string(strings[0]) : TRY(canonical_path(strings[0], self)),
                .token = std::string(strings[1])};
    if (!special && !strings[0].starts_with('/')) watch.prefix = domain_path(self).size() + 1;
    if (domain_.limited()) {
        if (domain_.watches >= store_.quota_.watches) return refuse(E2BIG, "watches");
        if (std::cmp_greater(watch.memory(), std::max<std::int64_t>(store_.memory_left(domain_), 0)))
            return refuse(ENOMEM, "memory");
    }
    registered_ = store_.watches_.add(std::move(watch));
    if (!registered_) return refuse(EEXIST, "watch");
    domain_.watches += 1;
    domain_.memory += static_cast<std::int64_t>(registered_->memory());
    return terminated("OK");
}

void StoreRequest::watch_registered() { store_.deliver(*registered_, registered_->path); }

StoreRequest::Answer StoreRequest::unwatch() {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() != 2) return refuse(EINVAL, "arguments");
    const std::string path =
        strings[0].starts_with('@') ? std::string(strings[0]) : TRY(canonical_path(strings[0], connection_.who().id));
    const std::size_t freed = store_.watches_.remove(connection_.id_, path, strings[1]);
    if (freed == 0) return refuse(ENOENT, "watch");
    domain_.watches -= 1;
    domain_.memory -= static_cast<std::int64_t>(freed);
    return terminated("OK");
}

// ---- transactions -------------------------------------------------------------------------------------------------

StoreRequest::Answer StoreRequest::start() {
    if (transaction_) return refuse(EBUSY, "transaction in a transaction");
    if (domain_.limited() && domain_.transactions >= store_.quota_.transactions) return refuse(ENOSPC, "transactions");
    auto& open = connection_.transactions_;
    while (connection_.next_transaction_ == 0 || open.contains(connection_.next_transaction_))
        ++connection_.next_transaction_;
    const std::uint32_t id = connection_.next_transaction_++;
    const std::size_t limit = domain_.limited() ? store_.quota_.transaction_nodes : SIZE_MAX;
    open.emplace(id, std::make_unique<StoreTransaction>(store_.tree_, limit));
    domain_.transactions += 1;
    store_.open_transactions_ += 1;
    return terminated(std::to_string(id));
}

StoreRequest::Answer StoreRequest::end() {
    const std::string_view how = TRY(argument());
    if (how != "T" && how != "F") return refuse(EINVAL, "arguments");
    if (!transaction_) return refuse(ENOENT, "transaction");
    // From here on it is over, whatever comes out.
    const auto ended = connection_.transactions_.extract(header_.transaction);
    domain_.transactions -= 1;
    domain_.memory -= transaction_->memory();
    if (how == "T") {
        const Status committed = commit(*transaction_);
        store_.open_transactions_ -= 1;
        if (!committed) return std::unexpected(committed.error());
        return terminated("OK");
    }
    store_.open_transactions_ -= 1;
    return terminated("OK");
}

Status StoreRequest::commit(StoreTransaction& transaction) {
    if (transaction.failed()) return refuse(ENOMEM, "failed transaction");
    if (transaction.conflicts()) return refuse(EAGAIN, "conflict");
    for (const DomainKey& who : transaction.names())
        if (who.generation != no_generation && !store_.domains_.alive(who)) return refuse(EAGAIN, "domain died");
    if (domain_.limited()) {
        // Others of the domain's connections may have used the quota since.
        const Usage more = transaction.usage(domain_.subject.self);
        const Usage have = store_.tree_.usage(domain_.subject.self);
        if (more.nodes > 0 && have.nodes + more.nodes > static_cast<std::int64_t>(store_.quota_.nodes))
            return refuse(ENOSPC, "nodes");
        if (more.bytes > 0 && more.bytes > store_.memory_left(domain_)) return refuse(ENOMEM, "memory");
    }
    const std::vector<Change> changes = transaction.commit();
    work_ += changes.size();
    if (!changes.empty() && store_.open_transactions_ > 1) store_.domains_.pay(domain_);
    store_.fire(changes);
    return {};
}

// ---- Dom0's -------------------------------------------------------------------------------------------------------

Result<StoreDomain*> StoreRequest::domain_argument(std::string_view text) const {
    StoreDomain* domain = store_.domains_.find(TRY(parse_domain(text)));
    if (!domain) return refuse(ENOENT, "domain");
    return domain;
}

StoreRequest::Answer StoreRequest::answer_privileged() {
    switch (static_cast<StoreOp>(header_.type)) {
        case StoreOp::introduce: return introduce();
        case StoreOp::release: {
            const std::string_view id = TRY(argument());
            StoreDomain* domain = TRY(domain_argument(id));
            if (!domain->limited() || !domain->introduced) return refuse(EINVAL, "domain");
            store_.withdraw(*domain);
            store_.fire_special(release_domain);
            return terminated("OK");
        }
        case StoreOp::resume: {
            const std::string_view id = TRY(argument());
            StoreDomain* domain = TRY(domain_argument(id));
            if (!domain->introduced) return refuse(EINVAL, "domain");
            domain->shut_down = false;
            return terminated("OK");
        }
        case StoreOp::set_target: return set_target();
        default: return refuse(EINVAL, "control command");  // there is nothing to control
    }
}

// "<domid>|<gfn>|<evtchn>|": here a domain has a socket instead of the two, so they are not looked at.
StoreRequest::Answer StoreRequest::introduce() {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() < 3) return refuse(EINVAL, "arguments");
    StoreDomain* domain = TRY(domain_argument(strings[0]));
    if (!std::exchange(domain->introduced, true)) store_.fire_special(introduce_domain);
    return terminated("OK");
}

StoreRequest::Answer StoreRequest::set_target() {
    const auto strings = TRY(payload_strings(payload_));
    if (strings.size() != 2) return refuse(EINVAL, "arguments");
    StoreDomain* domain = TRY(domain_argument(strings[0]));
    const StoreDomain* target = TRY(domain_argument(strings[1]));
    if (!domain->introduced || !target->introduced || !target->limited()) return refuse(EINVAL, "domain");
    domain->subject.target = target->subject.self;
    return terminated("OK");
}

}  // namespace caisson::hypervisor
