#include "domains/hypervisor/xenstore_domains.h"

#include <algorithm>
#include <cmath>

namespace caisson::hypervisor {

Rights rights(const Permissions& permissions, const Subject& who) {
    const auto is_subject = [&](const Permission& entry) {
        return entry.whom == who.self || (who.target && entry.whom == *who.target);
    };
    if (who.privileged() || is_subject(permissions.front())) return {.read = true, .write = true, .owner = true};
    const auto own = std::find_if(permissions.begin() + 1, permissions.end(), is_subject);
    const auto access = static_cast<unsigned>(own == permissions.end() ? permissions.front().access : own->access);
    return {.read = (access & static_cast<unsigned>(Access::read)) != 0,
            .write = (access & static_cast<unsigned>(Access::write)) != 0};
}

StoreDomains::StoreDomains(const StoreQuota& quota) : quota_(quota), reserve_(quota.write_reserve) {
    create({control_domain, 0})->introduced = true;
}

StoreDomain* StoreDomains::find(DomainId domain) {
    const auto entry = domains_.find(domain);
    return entry == domains_.end() ? nullptr : &entry->second;
}

const StoreDomain* StoreDomains::find(DomainId domain) const {
    const auto entry = domains_.find(domain);
    return entry == domains_.end() ? nullptr : &entry->second;
}

bool StoreDomains::alive(DomainKey who) const {
    const StoreDomain* domain = find(who.id);
    return domain && domain->subject.self == who;
}

StoreDomain* StoreDomains::create(DomainKey who) {
    const auto [entry, added] = domains_.try_emplace(who.id);
    if (!added) return nullptr;
    entry->second.subject.self = who;
    entry->second.credit = quota_.write_burst;
    return &entry->second;
}

void StoreDomains::erase(DomainId domain) {
    const auto entry = domains_.find(domain);
    if (entry == domains_.end()) return;
    for (auto& [id, other] : domains_)
        if (other.subject.target == entry->second.subject.self) other.subject.target.reset();
    domains_.erase(entry);
}

std::optional<DomainKey> StoreDomains::current(DomainId domain) const {
    const StoreDomain* known = find(domain);
    return known ? std::optional(known->subject.self) : std::nullopt;
}

void StoreDomains::grow(StoreTime elapsed) {
    if (elapsed <= StoreTime{0}) return;
    const double earned = std::chrono::duration<double>(elapsed).count() * quota_.write_rate;
    for (auto& [id, domain] : domains_) {
        domain.credit += earned;
        const double surplus = std::max(0.0, domain.credit - quota_.write_burst);
        domain.credit -= surplus;
        if (domain.limited()) reserve_ = std::min(quota_.write_reserve, reserve_ + surplus);
    }
}

void StoreDomains::pay(StoreDomain& domain) {
    if (!domain.limited()) return;
    if (domain.credit < 1 && reserve_ >= 1)
        reserve_ -= 1;
    else
        domain.credit -= 1;
}

StoreTime StoreDomains::wait(const StoreDomain& domain) const {
    if (!domain.limited() || domain.credit >= 0) return StoreTime{0};
    const double seconds = -domain.credit / quota_.write_rate;
    return StoreTime(static_cast<std::int64_t>(std::ceil(seconds * 1e9)) + 1);
}

}  // namespace caisson::hypervisor
