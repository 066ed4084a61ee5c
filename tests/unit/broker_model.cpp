// The grant and event tables against a reference that is too simple to be wrong: the same random calls to both, and
// both must say the same. After every call the counters are recounted (XSA-218, 224, 230, 236, 380, 394: they drifted).
#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <set>

#include "domains/hypervisor/events.h"
#include "domains/hypervisor/grants.h"

namespace caisson::hypervisor {

namespace {

constexpr int domains = 4, connections_each = 2, steps = 60'000;
constexpr Limits small{.grants = 40, .regions = 12, .pages_per_share = 5, .mappings = 6, .ports = 6};

DomainKey key(int domain) { return {DomainId(static_cast<std::uint16_t>(domain)), 1}; }
ConnectionId connection(int domain, int n) {
    return ConnectionId(static_cast<std::uint64_t>(domain * connections_each + n + 1));
}
int domain_of(ConnectionId id) { return static_cast<int>((id.raw - 1) / connections_each); }

struct Dice {
    std::mt19937 random;
    int below(int limit) { return static_cast<int>(random() % static_cast<unsigned>(limit)); }
    ConnectionId any_connection() { return connection(below(domains), below(connections_each)); }
};

// ---- Grants --------------------------------------------------------------------------------------------------------

struct NaiveRegion {
    int granter, peer;
    ConnectionId owner;
    std::uint32_t first, pages;
    bool writable, active, ended = false;
    std::set<ConnectionId> mappers;
    RegionId id{};
};

struct NaiveGrants {
    std::vector<NaiveRegion> regions;

    NaiveRegion* at(int granter, std::uint32_t ref) {
        for (NaiveRegion& region : regions)
            if (region.granter == granter && ref >= region.first && ref < region.first + region.pages) return &region;
        return nullptr;
    }
    std::uint32_t grants(int granter) const {
        std::uint32_t sum = 0;
        for (const NaiveRegion& region : regions)
            if (region.granter == granter) sum += region.pages;
        return sum;
    }
    std::uint32_t count(int granter) const {
        return static_cast<std::uint32_t>(
            std::count_if(regions.begin(), regions.end(), [&](const auto& r) { return r.granter == granter; }));
    }
    std::uint32_t mappings(int domain) const {
        std::uint32_t sum = 0;
        for (const NaiveRegion& region : regions)
            for (ConnectionId id : region.mappers) sum += domain_of(id) == domain;
        return sum;
    }
    bool run_free(int granter, std::uint32_t pages) {
        for (std::uint32_t ref = first_grant, run = 0; ref < small.grants; ++ref) {
            run = at(granter, ref) == nullptr ? run + 1 : 0;
            if (run == pages) return true;
        }
        return false;
    }
    bool usable(int granter, int peer, std::uint32_t ref, bool write) {
        const NaiveRegion* region = at(granter, ref);
        return region != nullptr && region->active && !region->ended && region->peer == peer &&
               (!write || region->writable);
    }
    void sweep() {
        std::erase_if(regions, [](const NaiveRegion& region) { return region.ended && region.mappers.empty(); });
    }
    void unmap_all(ConnectionId id) {
        for (NaiveRegion& region : regions) region.mappers.erase(id);
        sweep();
    }
    void close(ConnectionId id) {
        unmap_all(id);
        for (NaiveRegion& region : regions)
            if (region.owner == id) region.ended = true;
        sweep();
    }
};

struct GrantRun {
    Dice dice;
    OwnDescriptors descriptors = OwnDescriptors::open().value();
    Grants real{descriptors, small};
    NaiveGrants naive;

    std::uint32_t any_ref() { return static_cast<std::uint32_t>(dice.below(static_cast<int>(small.grants) + 3)); }

    void share() {
        const ConnectionId owner = dice.any_connection();
        const int granter = domain_of(owner), peer = dice.below(domains);
        const auto pages = static_cast<std::uint32_t>(dice.below(7));
        const bool writable = dice.below(2) == 0;
        const bool expected = pages >= 1 && pages <= small.pages_per_share && naive.count(granter) < small.regions &&
                              naive.run_free(granter, pages);
        const auto got = real.share(owner, key(peer), pages, writable ? Access::read_write : Access::read_only);
        REQUIRE(got.has_value() == expected);
        if (!got) return;
        for (std::uint32_t i = 0; i < pages; ++i) REQUIRE(naive.at(granter, got->first.raw + i) == nullptr);
        naive.regions.push_back({.granter = granter,
                                 .peer = peer,
                                 .owner = owner,
                                 .first = got->first.raw,
                                 .pages = pages,
                                 .writable = writable,
                                 .active = writable,
                                 .mappers = {}});
    }
    void activate() {
        const ConnectionId owner = dice.any_connection();
        const std::uint32_t ref = any_ref();
        NaiveRegion* region = naive.at(domain_of(owner), ref);
        const bool expected = region != nullptr && region->first == ref && region->owner == owner && !region->ended;
        REQUIRE(real.activate(owner, GrantRef(ref)).has_value() == expected);
        if (expected) region->active = true;
    }
    void end() {
        const ConnectionId asker = dice.any_connection();
        const bool any = dice.below(2) == 0;
        const std::uint32_t ref = any_ref();
        NaiveRegion* region = naive.at(domain_of(asker), ref);
        const bool known =
            region != nullptr && region->first == ref && !region->ended && (any || region->owner == asker);
        const auto got = real.end(asker, GrantRef(ref), any);
        REQUIRE(got.has_value() == known);
        if (!got) return;
        REQUIRE((*got == End::ended) == region->mappers.empty());
        if (*got == End::ended) region->ended = true;
        naive.sweep();
    }
    void map() {
        const ConnectionId mapper = dice.any_connection();
        const int granter = dice.below(domains), self = domain_of(mapper);
        const bool write = dice.below(3) == 0;
        std::vector<std::uint32_t> refs(static_cast<std::size_t>(1 + dice.below(4)));
        for (auto& ref : refs) ref = dice.below(4) == 0 || naive.regions.empty() ? any_ref() : some_ref_of(granter);
        std::set<NaiveRegion*> fresh;
        bool expected = true;
        for (std::uint32_t ref : refs) {
            expected = expected && naive.usable(granter, self, ref, write);
            NaiveRegion* region = naive.at(granter, ref);
            if (expected && !region->mappers.contains(mapper)) fresh.insert(region);
        }
        expected = expected && naive.mappings(self) + fresh.size() <= small.mappings;
        const auto got = real.map(mapper, key(granter), refs, write ? Access::read_write : Access::read_only);
        REQUIRE(got.has_value() == expected);
        if (!got) return;
        for (std::size_t i = 0; i < refs.size(); ++i) {
            NaiveRegion* region = naive.at(granter, refs[i]);
            region->mappers.insert(mapper);
            region->id = got->refs[i].region;
            REQUIRE(got->refs[i].page == refs[i] - region->first);
        }
    }
    std::uint32_t some_ref_of(int granter) {
        const auto& region =
            naive.regions[static_cast<std::size_t>(dice.below(static_cast<int>(naive.regions.size())))];
        return region.granter == granter
                   ? region.first + static_cast<std::uint32_t>(dice.below(static_cast<int>(region.pages)))
                   : any_ref();
    }
    void unmap() {
        const ConnectionId mapper = dice.any_connection();
        if (naive.regions.empty() || dice.below(8) == 0)
            return real.unmap(mapper, std::vector<std::uint64_t>{0, 1u << 30});
        auto& region = naive.regions[static_cast<std::size_t>(dice.below(static_cast<int>(naive.regions.size())))];
        const std::uint64_t id = region.id.raw;  // perhaps not mapped, perhaps another's: then nothing happens
        real.unmap(mapper, std::vector{id, id});
        if (id != 0) region.mappers.erase(mapper);
        naive.sweep();
    }
    void fetch() {
        const int asker = dice.below(domains), granter = dice.below(domains);
        const std::uint32_t ref = any_ref();
        REQUIRE(real.fetch(key(asker), key(granter), GrantRef(ref)).has_value() ==
                naive.usable(granter, asker, ref, false));
    }
    void close() {
        const ConnectionId id = dice.any_connection();
        real.remove(id);
        naive.close(id);
        real.add(id, key(domain_of(id)));
    }
    void successor() {
        const ConnectionId id = dice.any_connection();
        real.forget_mappings(id);
        naive.unmap_all(id);
    }
    void die() {
        const int domain = dice.below(domains);
        real.remove(key(domain));
        for (int n = 0; n < connections_each; ++n) naive.close(connection(domain, n));
        // What others still map of it is nobody's grant any more. It counts for them until they unmap.
        orphans(domain);
        real.add(key(domain));
        for (int n = 0; n < connections_each; ++n) real.add(connection(domain, n), key(domain));
    }
    void orphans(int domain) {
        for (NaiveRegion& region : naive.regions)
            if (region.granter == domain) region.granter = -1;
    }
    void check() {
        REQUIRE(real.exact());
        REQUIRE(real.regions() == naive.regions.size());
        for (int domain = 0; domain < domains; ++domain) {
            const GrantUse use = real.use(key(domain));
            REQUIRE(use.grants == naive.grants(domain));
            REQUIRE(use.regions == naive.count(domain));
            REQUIRE(use.mappings == naive.mappings(domain));
        }
    }
};

}  // namespace

TEST_CASE("the grant tables agree with a naive reference through 60000 random calls") {
    GrantRun run{.dice = {std::mt19937(20170620)}};
    for (int domain = 0; domain < domains; ++domain) {
        run.real.add(key(domain));
        for (int n = 0; n < connections_each; ++n) run.real.add(connection(domain, n), key(domain));
    }
    for (int step = 0; step < steps; ++step) {
        INFO("step " << step);
        const int what = run.dice.below(1000);
        if (what < 250)
            run.share();
        else if (what < 350)
            run.activate();
        else if (what < 550)
            run.end();
        else if (what < 750)
            run.map();
        else if (what < 900)
            run.unmap();
        else if (what < 960)
            run.fetch();
        else if (what < 980)
            run.close();
        else if (what < 995)
            run.successor();
        else
            run.die();
        run.check();
    }
}

// ---- Events --------------------------------------------------------------------------------------------------------

TEST_CASE("the event channels agree with a naive reference through 60000 random calls") {
    Dice dice{std::mt19937(20200922)};
    const OwnDescriptors descriptors = OwnDescriptors::open().value();
    Events real(descriptors, small);
    struct NaivePort {
        int peer;
        std::uint32_t remote;
        ConnectionId owner;
    };
    std::map<std::pair<int, std::uint32_t>, NaivePort> ports;
    for (int domain = 0; domain < domains; ++domain) real.add(key(domain));

    const auto count = [&](int domain) {
        return static_cast<std::uint32_t>(
            std::count_if(ports.begin(), ports.end(), [&](const auto& p) { return p.first.first == domain; }));
    };
    const auto close = [&](std::map<std::pair<int, std::uint32_t>, NaivePort>::iterator at) {
        const auto [peer, remote, owner] = at->second;
        ports.erase(at);
        if (remote == 0) return;
        if (const auto other = ports.find({peer, remote}); other != ports.end()) other->second.remote = 0;
    };
    for (int step = 0; step < steps; ++step) {
        INFO("step " << step);
        const ConnectionId owner = dice.any_connection();
        const int self = domain_of(owner), peer = dice.below(domains), what = dice.below(100);
        const auto port = static_cast<std::uint32_t>(dice.below(8));
        if (what < 35) {
            const auto got = real.allocate_unbound(owner, key(self), key(peer));
            REQUIRE(got.has_value() == (count(self) < small.ports));
            if (got) REQUIRE(ports.emplace(std::pair(self, got->port.raw), NaivePort{peer, 0, owner}).second);
        } else if (what < 70) {
            const auto other = ports.find({peer, port});
            const bool expected = other != ports.end() && other->second.peer == self && other->second.remote == 0 &&
                                  count(self) < small.ports;
            const auto got = real.bind_interdomain(owner, key(self), key(peer), Port(port));
            REQUIRE(got.has_value() == expected);
            if (got) {
                other->second.remote = got->port.raw;
                REQUIRE(ports.emplace(std::pair(self, got->port.raw), NaivePort{peer, port, owner}).second);
                char event[2];
                REQUIRE(::read(got->wait.get(), event, sizeof event) >= 1);  // pending at once, perhaps since before
            }
        } else if (what < 94) {
            const auto at = ports.find({self, port});
            REQUIRE(real.close(key(self), Port(port)).has_value() == (at != ports.end()));
            if (at != ports.end()) close(at);
        } else if (what < 97) {
            real.remove(owner, key(self));
            for (auto at = ports.begin(); at != ports.end();)
                if (const auto next = std::next(at); at->second.owner == owner) {
                    close(at);
                    at = next;
                } else {
                    at = next;
                }
        } else {
            real.remove(key(self));
            real.add(key(self));
            for (auto at = ports.begin(); at != ports.end();)
                if (const auto next = std::next(at); at->first.first == self) {
                    close(at);
                    at = next;
                } else {
                    at = next;
                }
        }
        REQUIRE(real.ports() == ports.size());
        for (const auto& [name, naive] : ports) {
            const Events::State* state = real.state(key(name.first), Port(name.second));
            REQUIRE(state != nullptr);
            REQUIRE(state->peer == key(naive.peer));
            REQUIRE(state->remote.raw == naive.remote);
        }
    }
}

}  // namespace caisson::hypervisor
