#include "domains/hypervisor/grants.h"

#include <algorithm>

#include "ring/local/wire.h"

namespace caisson::hypervisor {

using local::status_granted;
using local::status_step;
using local::status_writable;

// ---- Domains and connections come and go ---------------------------------------------------------------------------

void Grants::add(DomainKey domain) { tables_.try_emplace(domain); }

void Grants::add(ConnectionId connection, DomainKey domain) { holdings_[connection].domain = domain; }

void Grants::remove(DomainKey domain) {
    std::vector<ConnectionId> connections;
    for (const auto& [id, holdings] : holdings_)
        if (holdings.domain == domain) connections.push_back(id);
    for (ConnectionId id : connections) remove(id);

    // What is left of its regions is mapped by others. Their references die with the table, the pages stay until
    // unmapped.
    for (auto& [id, region] : regions_)
        if (region.granter == domain) region.orphan = true;
    tables_.erase(domain);
    for (auto& [key, table] : tables_) table.status.erase(domain);
}

void Grants::remove(ConnectionId connection) {
    const auto found = holdings_.find(connection);
    if (found == holdings_.end()) return;
    forget_mappings(connection);
    const std::set<RegionId> shared = std::move(found->second.shared);
    holdings_.erase(found);
    for (RegionId id : shared) (void)finish(id);
}

void Grants::forget_mappings(ConnectionId connection) {
    const auto found = holdings_.find(connection);
    if (found == holdings_.end()) return;
    while (!found->second.mapped.empty()) unmap_one(found->second, *found->second.mapped.begin());
}

// ---- The granter's side --------------------------------------------------------------------------------------------

Result<Grants::Shared> Grants::share(ConnectionId owner, DomainKey peer, std::uint32_t pages, caisson::Access access) {
    Holdings& holdings = holdings_.at(owner);
    Table& table = tables_.at(holdings.domain);
    if (pages == 0 || pages > limits_.pages_per_share) return deny(EINVAL, "pages of one share");
    if (pages > limits_.grants - first_grant - std::min(limits_.grants - first_grant, table.use.grants))
        return deny(ENOSPC, "grant quota");
    if (table.use.regions >= limits_.regions) return deny(ENOSPC, "quota of shared regions");

    StatusPage* status = TRY(status_of(table, peer));
    Fd memory = TRY(sealed_memory("caisson-grant", pages * page_size));
    if (access == caisson::Access::read_write) TRY(seal_for_good(memory.get(), Writing::allowed));
    Fd writable = TRY(descriptors_.reopen(memory.get(), O_RDWR));
    const std::uint32_t first = TRY(free_references(table, pages));

    const RegionId id(next_region_++);
    const std::uint32_t word =
        status_granted | (access == caisson::Access::read_write ? status_writable : 0) | table.next_status;
    table.next_status += status_step;
    if (table.entries.size() < first + pages) table.entries.resize(first + pages);
    std::fill_n(table.entries.begin() + first, pages, id);
    table.use.grants += pages;
    ++table.use.regions;
    holdings.shared.insert(id);
    const Region& region = regions_
                               .emplace(id, Region{.granter = holdings.domain,
                                                   .peer = peer,
                                                   .owner = owner,
                                                   .first = first,
                                                   .pages = pages,
                                                   .status = word,
                                                   .access = access,
                                                   .active = access == caisson::Access::read_write,
                                                   .memory = std::move(memory)})
                               .first->second;
    if (region.active) status->set(first, pages, word);
    return Shared{GrantRef(first), std::move(writable)};
}

Status Grants::activate(ConnectionId owner, GrantRef first) {
    Region& region = regions_.at(TRY(owned(owner, first, false)));
    if (region.active) return {};
    TRY(seal_for_good(region.memory.get(), Writing::forbidden_from_now));
    region.active = true;
    announce(region, region.status);
    return {};
}

Result<Grants::Reclaimed> Grants::reclaim(ConnectionId owner, GrantRef first) {
    const Region& region = regions_.at(TRY(owned(owner, first, false)));
    Fd memory =
        TRY(descriptors_.reopen(region.memory.get(), region.access == caisson::Access::read_write ? O_RDWR : O_RDONLY));
    return Reclaimed{region.peer, region.access, region.pages, std::move(memory)};
}

Result<End> Grants::end(ConnectionId asker, GrantRef first, bool any_of_domain) {
    const RegionId id = TRY(owned(asker, first, any_of_domain));
    const Region& region = regions_.at(id);
    if (region.mappers > 0) return End::still_mapped;
    if (const auto owner = holdings_.find(region.owner); owner != holdings_.end()) owner->second.shared.erase(id);
    return finish(id);
}

// ---- The peer's side -----------------------------------------------------------------------------------------------

Result<Grants::Mapping> Grants::map(ConnectionId mapper, DomainKey granter, std::span<const std::uint32_t> refs,
                                    caisson::Access access) {
    Holdings& holdings = holdings_.at(mapper);
    Table& own = tables_.at(holdings.domain);
    Mapping mapping;
    std::vector<RegionId> distinct;
    std::uint32_t fresh = 0;
    std::uint64_t fresh_pages = 0;
    for (std::uint32_t ref : refs) {
        const RegionId id = TRY(granted(holdings.domain, granter, ref));
        const Region& region = regions_.at(id);
        if (access == caisson::Access::read_write && region.access == caisson::Access::read_only)
            return deny_peer(EACCES, "the grant is read-only", ref);
        auto known = std::find(distinct.begin(), distinct.end(), id);
        if (known == distinct.end()) {
            mapping.regions.push_back(TRY(
                descriptors_.reopen(region.memory.get(), access == caisson::Access::read_write ? O_RDWR : O_RDONLY)));
            known = distinct.insert(distinct.end(), id);
            if (!holdings.mapped.contains(id)) {
                ++fresh;
                fresh_pages += region.pages;
            }
        }
        mapping.refs.push_back({id, ref - region.first, static_cast<std::uint32_t>(known - distinct.begin())});
    }
    if (fresh > limits_.mappings - std::min(limits_.mappings, own.use.mappings)) return deny(ENOSPC, "mapping quota");
    if (fresh_pages + own.use.mapped_pages > limits_.mapped_pages) return deny(ENOSPC, "quota of mapped pages");

    // Nothing below fails.
    for (RegionId id : distinct)
        if (holdings.mapped.insert(id).second) {
            Region& region = regions_.at(id);
            ++region.mappers;
            ++own.use.mappings;
            own.use.mapped_pages += region.pages;
            mapping.fresh.push_back(id.raw);
        }
    return mapping;
}

void Grants::unmap(ConnectionId mapper, std::span<const std::uint64_t> regions) {
    const auto found = holdings_.find(mapper);
    if (found == holdings_.end()) return;
    for (std::uint64_t raw : regions) unmap_one(found->second, RegionId(raw));
}

Result<Grants::Fetched> Grants::fetch(DomainKey asker, DomainKey granter, GrantRef ref) {
    const Region& region = regions_.at(TRY(granted(asker, granter, ref.raw)));
    Fd memory =
        TRY(descriptors_.reopen(region.memory.get(), region.access == caisson::Access::read_write ? O_RDWR : O_RDONLY));
    return Fetched{region.first, region.pages, region.status, std::move(memory)};
}

Result<Grants::StatusOf> Grants::status_page(DomainKey asker, DomainKey granter) {
    const auto table = tables_.find(granter);
    if (table == tables_.end()) return deny_peer(ESRCH, "no such domain");
    const auto page = table->second.status.find(asker);
    if (page == table->second.status.end()) return deny_peer(ENOENT, "nothing is granted to us");
    return StatusOf{page->second.entries(), TRY(descriptors_.reopen(page->second.descriptor(), O_RDONLY))};
}

// ---- Inside --------------------------------------------------------------------------------------------------------

Result<RegionId> Grants::owned(ConnectionId asker, GrantRef first, bool any_of_domain) {
    const Holdings& holdings = holdings_.at(asker);
    const Table& table = tables_.at(holdings.domain);
    const RegionId id = first.raw < table.entries.size() ? table.entries[first.raw] : RegionId{};
    if (id.raw == 0) return deny_peer(ENOENT, "no such grant of ours", first.raw);
    const Region& region = regions_.at(id);
    if (region.first != first.raw || region.ended || (region.owner != asker && !any_of_domain))
        return deny_peer(ENOENT, "no such grant of ours", first.raw);
    return id;
}

Result<RegionId> Grants::granted(DomainKey asker, DomainKey granter, std::uint32_t ref) {
    const auto table = tables_.find(granter);
    if (table == tables_.end()) return deny_peer(ESRCH, "no such domain", ref);
    const RegionId id = ref < table->second.entries.size() ? table->second.entries[ref] : RegionId{};
    if (id.raw == 0) return deny_peer(ENOENT, "no such grant", ref);
    const Region& region = regions_.at(id);
    if (!region.active || region.ended || region.peer != asker) return deny_peer(ENOENT, "no such grant", ref);
    return id;
}

// The lowest run of `count` free references: tables stay dense, so that peers can look references up in arrays.
Result<std::uint32_t> Grants::free_references(Table& table, std::uint32_t count) const {
    const std::vector<RegionId>& entries = table.entries;
    std::uint32_t run = 0, lowest = 0;
    for (std::uint32_t ref = table.lowest_free; ref < limits_.grants; ++ref) {
        const bool free = ref >= entries.size() || entries[ref].raw == 0;
        if (free && lowest == 0) lowest = ref;
        run = free ? run + 1 : 0;
        if (run == count) {
            table.lowest_free = lowest == ref - count + 1 ? ref + 1 : lowest;
            return ref - count + 1;
        }
    }
    return deny(ENOSPC, "grant quota: no run of references that long is free");
}

Result<StatusPage*> Grants::status_of(Table& table, DomainKey peer) {
    auto page = table.status.find(peer);
    if (page == table.status.end()) page = table.status.emplace(peer, TRY(StatusPage::make(limits_.grants))).first;
    return &page->second;
}

void Grants::announce(const Region& region, std::uint32_t word) {
    const auto table = tables_.find(region.granter);
    if (table == tables_.end()) return;
    const auto page = table->second.status.find(region.peer);
    if (page != table->second.status.end()) page->second.set(region.first, region.pages, word);
}

End Grants::finish(RegionId id) {
    Region& region = regions_.at(id);
    announce(region, 0);
    region.ended = true;
    if (region.mappers > 0) {
        if (const auto table = tables_.find(region.granter); table != tables_.end())
            table->second.use.quarantined += region.pages;
        return End::still_mapped;
    }
    drop(id);
    return End::ended;
}

void Grants::drop(RegionId id) {
    const auto found = regions_.find(id);
    const Region& region = found->second;
    if (const auto table = tables_.find(region.granter); !region.orphan && table != tables_.end()) {
        std::fill_n(table->second.entries.begin() + region.first, region.pages, RegionId{});
        table->second.lowest_free = std::min(table->second.lowest_free, region.first);
        table->second.use.grants -= region.pages;
        --table->second.use.regions;
    }
    regions_.erase(found);
}

void Grants::unmap_one(Holdings& holdings, RegionId id) {
    if (holdings.mapped.erase(id) == 0) return;
    Region& region = regions_.at(id);
    GrantUse& use = tables_.at(holdings.domain).use;
    --use.mappings;
    use.mapped_pages -= region.pages;
    if (--region.mappers > 0 || !region.ended) return;
    if (const auto table = tables_.find(region.granter); !region.orphan && table != tables_.end())
        table->second.use.quarantined -= region.pages;
    drop(id);
}

GrantUse Grants::use(DomainKey domain) const {
    const auto found = tables_.find(domain);
    return found == tables_.end() ? GrantUse{} : found->second.use;
}

bool Grants::exact() const {
    std::map<DomainKey, GrantUse> counted;
    for (const auto& [id, region] : regions_) {
        if (region.ended && region.mappers == 0) return false;
        if (region.orphan) continue;
        GrantUse& use = counted[region.granter];
        use.grants += region.pages;
        ++use.regions;
        if (region.ended) use.quarantined += region.pages;
        const auto& entries = tables_.at(region.granter).entries;
        for (std::uint32_t ref = region.first; ref < region.first + region.pages; ++ref)
            if (entries.at(ref) != id) return false;
    }
    std::unordered_map<RegionId, std::uint32_t> mappers;
    for (const auto& [id, holdings] : holdings_)
        for (RegionId region : holdings.mapped) {
            ++mappers[region];
            ++counted[holdings.domain].mappings;
            counted[holdings.domain].mapped_pages += regions_.at(region).pages;
        }
    for (const auto& [id, region] : regions_)
        if (region.mappers != (mappers.contains(id) ? mappers.at(id) : 0)) return false;
    return std::all_of(tables_.begin(), tables_.end(), [&](const auto& entry) {
        const GrantUse& use = entry.second.use;
        const GrantUse& fact = counted[entry.first];
        return use.grants == fact.grants && use.regions == fact.regions && use.mappings == fact.mappings &&
               use.mapped_pages == fact.mapped_pages && use.quarantined == fact.quarantined;
    });
}

}  // namespace caisson::hypervisor
