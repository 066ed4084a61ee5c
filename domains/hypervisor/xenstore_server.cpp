#include "domains/hypervisor/xenstore_server.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "domains/hypervisor/xenstore_request.h"

namespace caisson::hypervisor {

Xenstored::Xenstored(StoreQuota quota) : quota_(quota), domains_(quota_) {}

Xenstored::~Xenstored() {
    while (!connections_.empty()) disconnect(connections_.begin()->second.get());
}

// ---- domains ------------------------------------------------------------------------------------------------------

Status Xenstored::create(DomainId domain, std::uint32_t generation) {
    if (domain.raw >= first_reserved_domid || generation == no_generation) return host_fault(EINVAL, "domain");
    if (!domains_.create({domain, generation})) return host_fault(EEXIST, "domain");
    return {};
}

Status Xenstored::introduce(DomainId domain, std::uint32_t generation) {
    if (!domains_.alive({domain, generation})) TRY(create(domain, generation));
    if (!std::exchange(domains_.find(domain)->introduced, true)) fire_special(introduce_domain);
    return {};
}

void Xenstored::domain_shut_down(DomainId domain) {
    StoreDomain* known = domains_.find(domain);
    if (known && known->limited() && !std::exchange(known->shut_down, true)) fire_special(release_domain);
}

void Xenstored::domain_died(DomainId domain) {
    StoreDomain* dead = domains_.find(domain);
    if (!dead || !dead->limited()) return;
    withdraw(*dead);
    domains_.erase(domain);
    fire_special(release_domain);
}

void Xenstored::withdraw(StoreDomain& domain) {
    const DomainKey gone = domain.subject.self;
    for (const auto& [id, connection] : connections_)
        if (connection->who() == gone) break_off(*connection);
    domain.introduced = false;
    domain.subject.target.reset();
    for (auto& [id, other] : domains_.all())
        if (other.subject.target == gone) other.subject.target.reset();
    fire(tree_.forget(gone));
}

// ---- connections --------------------------------------------------------------------------------------------------

Result<StoreConnection*> Xenstored::connect(DomainId domain, std::function<void()> wake) {
    StoreDomain* known = domains_.find(domain);
    if (!known) return host_fault(ENOENT, "domain");
    if (known->limited() && known->connections >= quota_.connections) return refuse(EMFILE, "connections");
    const std::uint64_t id = next_connection_++;
    auto connection = std::make_unique<StoreConnection>(*this, id, known->subject.self, std::move(wake));
    known->connections += 1;
    return connections_.emplace(id, std::move(connection)).first->second.get();
}

void Xenstored::disconnect(StoreConnection* connection) {
    connection->wake_ = nullptr;
    break_off(*connection);
    connections_.erase(connection->id_);
}

void Xenstored::clear(StoreConnection& connection) {
    StoreDomain* domain = connection.domain();
    const auto [count, memory] = watches_.remove_all(connection.id_);
    if (domain) {
        domain->watches -= count;
        domain->memory -= static_cast<std::int64_t>(memory);
        domain->transactions -= connection.transactions_.size();
        for (const auto& [id, transaction] : connection.transactions_) domain->memory -= transaction->memory();
    }
    open_transactions_ -= connection.transactions_.size();
    connection.transactions_.clear();
}

void Xenstored::break_off(StoreConnection& connection) {
    if (connection.broken_) return;
    clear(connection);
    connection.discard_output();
    connection.broken_ = true;
    // A request of it may be being served, out of these bytes (XSA-425); run() lets go of them then.
    if (!connection.serving_) connection.input_.clear();
    StoreDomain* domain = connection.domain();
    if (domain) {
        domain->connections -= 1;
        if (!connection.serving_) run_waiting(*domain);
    }
    if (connection.wake_) connection.wake_();
}

void Xenstored::run(StoreConnection& connection) {
    if (connection.serving_) return;
    connection.serving_ = true;
    std::size_t done = 0;
    while (!connection.broken_ && !connection.waiting()) {
        const std::string_view rest = std::string_view(connection.input_).substr(done);
        StoreHeader header;
        if (rest.size() < sizeof header) break;
        std::memcpy(&header, rest.data(), sizeof header);
        // Never kept to be tried again (XSA-420).
        if (header.length > store_payload_max) {
            break_off(connection);
            break;
        }
        if (rest.size() - sizeof header < header.length) break;
        done += sizeof header + header.length;
        StoreDomain* domain = connection.domain();
        StoreRequest(*this, connection, *domain, header, rest.substr(sizeof header, header.length)).serve();
    }
    connection.serving_ = false;
    connection.input_.erase(0, connection.broken_ ? connection.input_.npos : done);
    if (connection.paused_ && connection.room() > 0 && connection.wake_) connection.wake_();
}

void Xenstored::run_waiting(StoreDomain& domain) {
    for (const auto& [id, connection] : connections_)
        if (connection->who() == domain.subject.self && !connection->broken_) run(*connection);
}

// ---- watches ------------------------------------------------------------------------------------------------------

void Xenstored::deliver(const Watch& watch, std::string_view path) {
    const auto connection = connections_.find(watch.connection);
    if (connection == connections_.end()) return;
    connection->second->event(watch.shown(path), watch.shown(watch.path), watch.token);
}

void Xenstored::fire(const std::vector<Change>& changes) {
    for (const Change& change : changes) {
        watches_.match(change.path, change.reach, [&](const Watch& watch) {
            const auto connection = connections_.find(watch.connection);
            if (connection == connections_.end()) return;
            const StoreDomain* listener = connection->second->domain();
            const auto may_read = [&](const Permissions& list) { return rights(list, listener->subject).read; };
            if (listener && std::ranges::any_of(change.readers, may_read)) deliver(watch, change.path);
        });
    }
}

void Xenstored::fire_special(std::string_view path) {
    watches_.match(path, Reach::exact, [&](const Watch& watch) {
        const auto connection = connections_.find(watch.connection);
        if (connection != connections_.end() && connection->second->who().id == control_domain) deliver(watch, path);
    });
}

// ---- time ---------------------------------------------------------------------------------------------------------

void Xenstored::observe(StoreTime now) {
    if (now <= now_) return;
    domains_.grow(now - now_);
    now_ = now;
}

void Xenstored::tick(StoreTime now) {
    observe(now);
    for (auto& [id, domain] : domains_.all()) domain.work = 0;
    for (const auto& [id, connection] : connections_) {
        const StoreDomain* domain = connection->domain();
        if (!domain || connection->broken_) continue;
        const bool unread = domain->limited() && !connection->unread_events_.empty();
        if (unread && now_ - connection->progress_ >= quota_.unread_event)
            break_off(*connection);
        else
            run(*connection);
    }
}

std::optional<StoreTime> Xenstored::next_tick() const {
    std::optional<StoreTime> next;
    const auto at = [&](StoreTime time) { next = next ? std::min(*next, time) : time; };
    for (const auto& [id, connection] : connections_) {
        const StoreDomain* domain = connection->domain();
        if (!domain || connection->broken_ || !domain->limited()) continue;
        if (domain->work >= quota_.work) at(now_);
        if (!connection->unread_events_.empty()) at(connection->progress_ + quota_.unread_event);
        if (const StoreTime wait = domains_.wait(*domain); wait > StoreTime{0}) at(now_ + wait);
    }
    return next;
}

// ---- the broker's own access --------------------------------------------------------------------------------------

Status Xenstored::write(std::string_view path, std::string_view value) {
    StoreOperations operations(tree_, domains_.find(control_domain)->subject);
    const std::string full = TRY(canonical_path(path, control_domain));
    TRY(operations.write(full, value));
    fire(operations.changes());
    return {};
}

Result<std::string> Xenstored::read(std::string_view path) {
    StoreOperations operations(tree_, domains_.find(control_domain)->subject);
    const std::string full = TRY(canonical_path(path, control_domain));
    return operations.read(full);
}

Status Xenstored::remove(std::string_view path) {
    StoreOperations operations(tree_, domains_.find(control_domain)->subject);
    const std::string full = TRY(canonical_path(path, control_domain));
    TRY(operations.remove(full));
    fire(operations.changes());
    return {};
}

Status Xenstored::set_permissions(std::string_view path, const std::vector<std::string>& permissions) {
    Permissions list;
    for (const std::string& text : permissions) {
        const PermissionText entry = TRY(parse_permission(text));
        const auto whom = domains_.current(entry.domain);
        if (!whom && list.empty()) return host_fault(ENOENT, "owner");
        list.push_back({.whom = whom.value_or(DomainKey{entry.domain, no_generation}), .access = entry.access});
    }
    StoreOperations operations(tree_, domains_.find(control_domain)->subject);
    const std::string full = TRY(canonical_path(path, control_domain));
    TRY(operations.set_permissions(full, std::move(list)));
    fire(operations.changes());
    return {};
}

// ---- looking in ---------------------------------------------------------------------------------------------------

std::int64_t Xenstored::memory_left(const StoreDomain& domain) const {
    return quota_.memory - tree_.usage(domain.subject.self).bytes - domain.memory;
}

std::size_t Xenstored::watches(DomainId domain) const {
    const StoreDomain* known = domains_.find(domain);
    return known ? known->watches : 0;
}

std::size_t Xenstored::transactions(DomainId domain) const {
    const StoreDomain* known = domains_.find(domain);
    return known ? known->transactions : 0;
}

std::size_t Xenstored::memory(DomainId domain) const {
    const StoreDomain* known = domains_.find(domain);
    return known ? static_cast<std::size_t>(tree_.usage(known->subject.self).bytes + known->memory) : 0;
}

bool Xenstored::exact() const {
    struct Count {
        std::size_t connections = 0, watches = 0, transactions = 0, outstanding = 0;
        std::int64_t memory = 0;
        bool operator==(const Count&) const = default;
    };
    std::map<DomainKey, Count> recount;
    std::size_t watches = 0, transactions = 0;
    for (const auto& [id, connection] : connections_) {
        Count& count = recount[connection->who()];
        std::size_t replies = 0, events = 0;
        for (const auto& message : connection->output_) {
            count.memory += message.memory();
            ++(message.event ? events : replies);
        }
        for (const auto& [number, transaction] : connection->transactions_) {
            if (!transaction->exact()) return false;
            count.memory += transaction->memory();
        }
        count.connections += connection->broken_ ? 0 : 1;
        count.outstanding += replies;
        count.transactions += connection->transactions_.size();
        count.watches += watches_.count(id);
        count.memory += static_cast<std::int64_t>(watches_.memory(id));
        watches += watches_.count(id);
        transactions += connection->transactions_.size();
        if (replies != connection->replies_ || events != connection->unread_events_.size()) return false;
    }
    for (const auto& [id, domain] : domains_.all()) {
        const Count kept{domain.connections, domain.watches, domain.transactions, domain.outstanding, domain.memory};
        if (recount[domain.subject.self] != kept) return false;
    }
    for (const auto& [who, count] : recount)  // nothing is left of the dead
        if (!domains_.alive(who) && count != Count{}) return false;
    return watches == watches_.size() && transactions == open_transactions_ && watches_.exact() && tree_.exact();
}

}  // namespace caisson::hypervisor
