// The grant tables of all domains: their only truth. Domains never write an entry; they ask (XSA-500), and one thread
// answers, check first and commit after (XSA-218 to 236).
//
// A region is what one share() made: consecutive references to one memfd. It is dropped at its end, never used again.
// - A mapping is (region, connection): counted, in the way of end(). Mapping twice through one connection is one.
// - fetch() hands out the pages for copies: not counted, made void by the status page.
// - The references of an ended region are not given to another one while someone has it mapped.
#pragma once

#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "domains/hypervisor/identity.h"
#include "domains/hypervisor/limits.h"
#include "domains/hypervisor/status_page.h"
#include "ring/hypervisor.h"

namespace caisson::hypervisor {

struct GrantUse {
    std::uint32_t grants = 0, regions = 0, mappings = 0, mapped_pages = 0,
                  quarantined = 0;  // quarantined: ended or orphaned, but mapped
};

class Grants {
  public:
    Grants(const OwnDescriptors& descriptors, const Limits& limits) : descriptors_(descriptors), limits_(limits) {}

    void add(DomainKey domain);
    void remove(DomainKey domain);  // dead: its regions end, what is mapped of them goes to quarantine
    void add(ConnectionId connection, DomainKey domain);
    void remove(ConnectionId connection);           // closed: unmaps and ends what it mapped and shared
    void forget_mappings(ConnectionId connection);  // its process is dead, the connection goes to another one

    struct Shared {
        GrantRef first;
        Fd pages;
    };
    Result<Shared> share(ConnectionId owner, DomainKey peer, std::uint32_t pages, caisson::Access access);
    Status activate(ConnectionId owner, GrantRef first);
    struct Reclaimed {
        DomainKey peer;
        caisson::Access access;
        std::uint32_t pages;
        Fd memory;  // writable as far as the seals let it
    };
    Result<Reclaimed> reclaim(ConnectionId owner, GrantRef first);
    // `any_of_domain`: an unrestricted connection may end what another connection of its domain shared.
    Result<End> end(ConnectionId asker, GrantRef first, bool any_of_domain);

    struct MappedRef {
        RegionId region;
        std::uint32_t page;
        std::uint32_t index;  // in Mapping::regions
    };
    struct Mapping {
        std::vector<MappedRef> refs;
        std::vector<Fd> regions;
        std::vector<std::uint64_t> fresh;  // the regions that were not mapped before: what undoes this is unmap(fresh)
    };
    // All or nothing; the error's `got` is the first reference that is not to be had.
    Result<Mapping> map(ConnectionId mapper, DomainKey granter, std::span<const std::uint32_t> refs,
                        caisson::Access access);
    void unmap(ConnectionId mapper, std::span<const std::uint64_t> regions);  // what is not mapped is skipped

    struct Fetched {
        std::uint32_t first, pages, status;
        Fd memory;
    };
    Result<Fetched> fetch(DomainKey asker, DomainKey granter, GrantRef ref);
    struct StatusOf {
        std::uint32_t entries;
        Fd page;
    };
    Result<StatusOf> status_page(DomainKey asker, DomainKey granter);

    GrantUse use(DomainKey domain) const;
    std::size_t regions() const { return regions_.size(); }
    bool exact() const;  // every counter equals a recount; for tests

  private:
    struct Region {
        DomainKey granter, peer;
        ConnectionId owner;
        std::uint32_t first, pages, status;
        caisson::Access access;
        bool active = false, ended = false, orphan = false;
        std::uint32_t mappers = 0;
        Fd memory;
    };
    struct Table {
        std::vector<RegionId> entries;  // by reference; raw 0: free
        std::uint32_t lowest_free = first_grant;
        std::uint32_t next_status = status_seed;
        std::map<DomainKey, StatusPage> status;  // by peer
        GrantUse use;
    };
    struct Holdings {
        DomainKey domain;
        std::set<RegionId> mapped, shared;
    };
    static constexpr std::uint32_t status_seed = 4;

    Result<RegionId> owned(ConnectionId asker, GrantRef first, bool any_of_domain);
    Result<RegionId> granted(DomainKey asker, DomainKey granter, std::uint32_t ref);
    Result<std::uint32_t> free_references(Table& table, std::uint32_t count) const;
    Result<StatusPage*> status_of(Table& table, DomainKey peer);
    void announce(const Region& region, std::uint32_t word);
    End finish(RegionId id);  // ended or into quarantine
    void drop(RegionId id);   // the region and its references are gone
    void unmap_one(Holdings& holdings, RegionId id);

    const OwnDescriptors& descriptors_;
    const Limits& limits_;
    std::map<DomainKey, Table> tables_;
    std::map<ConnectionId, Holdings> holdings_;
    std::unordered_map<RegionId, Region> regions_;
    std::uint64_t next_region_ = 1;
};

}  // namespace caisson::hypervisor
