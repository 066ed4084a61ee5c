// Persistent grants: pages of the frontend that stay mapped between requests (feature-persistent of blkif.h).
//
// The cache owns its mappings (XSA-371): whatever happens to a request, the page is unmapped when it is evicted or when
// the device goes. At most `capacity` pages are mapped; the least recently used one that no request needs goes first. A
// page that is in use cannot go: then a new one finds no place, and its request is served through private memory.
//
// Lookups are a probe into a flat table; nothing is allocated after the first use.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ring/hypervisor.h"

namespace caisson::block::backend {

class GrantCache {
  public:
    GrantCache(Hypervisor& hypervisor, DomainId peer, std::uint32_t capacity)
        : hypervisor_(&hypervisor), peer_(peer), capacity_(capacity) {}

    // The page's place, pinned until unpin(). Empty when there is no place for it, or it cannot be mapped writable.
    std::optional<std::uint32_t> pin(GrantRef ref);
    void unpin(std::uint32_t place) { --pages_[place].pins; }
    SharedSpan memory(std::uint32_t place) const { return pages_[place].span; }

    std::uint32_t mapped() const { return static_cast<std::uint32_t>(pages_.size()); }
    std::uint32_t capacity() const { return capacity_; }

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    struct Page {
        SharedSpan span;
        GrantRef ref;
        std::uint32_t pins = 0;
        std::uint32_t newer = none, older = none;
        MappedPages mapping;
    };
    struct Slot {
        std::uint32_t ref = 0, place = none;
    };

    std::size_t home(GrantRef ref) const { return (ref.raw * 0x9E3779B1u) >> shift_; }
    void reserve();
    std::optional<std::uint32_t> map(GrantRef ref);
    std::optional<std::uint32_t> oldest_unpinned() const;
    void use(std::uint32_t place);
    void unlink(std::uint32_t place);
    void link_newest(std::uint32_t place);
    void insert(GrantRef ref, std::uint32_t place);
    void erase(GrantRef ref);

    Hypervisor* hypervisor_;
    DomainId peer_;
    std::uint32_t capacity_;
    unsigned shift_ = 0;
    std::vector<Slot> table_;  // open addressing, a power of two, at most half full
    std::vector<Page> pages_;  // by place; never shrinks
    std::uint32_t newest_ = none, oldest_ = none;
};

}  // namespace caisson::block::backend
