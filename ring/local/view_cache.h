// Peers' regions mapped for copy() and view(): fetched at the first use, valid as long as the status page says so.
//
// A look-up is one atomic load and a table access. The mapping of an ended region is kept for some more fetches,
// because a span of it may be in use in this turn of the loop, next to those that are being fetched; it is the peer's
// own memory, so nothing of ours is seen by it. Not for a time: fetches can take as long as the hypervisor is kept
// busy. All sizes are bounded for each peer; a peer that churns beyond them has only its own copies refused.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "ring/hypervisor.h"
#include "ring/local/connection.h"
#include "ring/local/shared_memory.h"

namespace caisson::local {

class ViewCache {
  public:
    explicit ViewCache(Connection& connection) : connection_(connection) {}

    SharedSpan view(const GrantRange& range, Access access, GrantStatus& status);
    // For tests: regions mapped here, retired ones included.
    std::size_t mapped_regions() const;

  private:
    struct Slot {
        std::byte* page = nullptr;
        std::uint32_t word = 0;  // the status word under which `page` is the reference's page
    };
    struct Region {
        Mapping mapping;
        std::uint32_t first, word;
    };
    struct Retired {
        Mapping mapping;
        std::uint64_t since;  // Peer::fetches
    };
    struct Peer {
        DomainId id;
        std::uint32_t generation = 0;
        Mapping status_memory;
        const std::uint32_t* status = nullptr;
        std::uint32_t entries = 0;
        std::vector<Slot> slots;     // by reference
        std::deque<Region> regions;  // oldest first
        std::deque<Retired> retired;
        std::size_t pages = 0, retired_pages = 0;
        std::uint64_t fetches = 0;  // tried

        std::uint32_t word(std::uint32_t ref) const;
    };

    Peer* find(DomainId id);
    bool fetch(DomainId id, GrantRef ref);
    Status open_status(Peer& peer);
    bool make_room(Peer& peer, std::size_t pages);
    void retire(Peer& peer, Region region);
    void reset(Peer& peer);

    Connection& connection_;
    std::vector<std::unique_ptr<Peer>> peers_;
    Peer* last_ = nullptr;
};

}  // namespace caisson::local
