// Persistent grants: pages of the frontend that stay mapped between requests (feature-persistent of blkif.h).
//
// The cache owns its mappings (XSA-371): whatever happens to a request, the page is unmapped when it is evicted or when
// the device goes. At most `capacity` pages are mapped. What one request needs and is not there is mapped in one call,
// and goes together: the batch that was used least recently, and that no request needs, first. Pages in use cannot go:
// then new ones find no place, and their request is served through private memory.
//
// In one call, and only so many pages at a time (allow()), because a successor begins with nothing mapped while a full
// ring waits for it: mapping would be most of the time that the guest waits. What is not mapped yet is copied.
//
// Lookups are a probe into a flat table; nothing is allocated after the first use of a batch's number.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ring/hypervisor.h"

namespace caisson::block::backend {

class GrantCache {
  public:
    GrantCache(Hypervisor& hypervisor, DomainId peer, std::uint32_t capacity)
        : hypervisor_(&hypervisor), peer_(peer), capacity_(capacity) {}

    // Appends the pages' places to `places`, in the order of `refs`, each pinned until unpin(). False, and nothing has
    // changed: there is no room for all of them, one cannot be mapped writable, or nothing is left of what
    // was allowed.
    bool pin(std::span<const GrantRef> refs, std::vector<std::uint32_t>& places);
    // The same for one page.
    std::optional<std::uint32_t> pin(GrantRef ref);
    // About how many pages may be mapped from now on; a call counts as pages_a_call at least, and the last one may go
    // beyond. At first: any number.
    static constexpr std::uint32_t pages_a_call = 16;
    void allow(std::uint32_t pages) { allowed_ = pages; }
    void unpin(std::uint32_t place) { --batches_[pages_[place].batch].pins; }
    SharedSpan memory(std::uint32_t place) const { return pages_[place].span; }

    std::uint32_t mapped() const { return mapped_; }
    std::uint32_t capacity() const { return capacity_; }

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    struct Page {
        SharedSpan span;
        GrantRef ref;
        std::uint32_t batch = none;
    };
    struct Batch {
        MappedPages mapping;
        std::vector<std::uint32_t> places;
        std::uint32_t pins = 0;  // of all its pages
        std::uint32_t newer = none, older = none;
    };
    struct Slot {
        std::uint32_t ref = 0, place = none;
    };

    std::size_t home(GrantRef ref) const { return (ref.raw * 0x9E3779B1u) >> shift_; }
    void reserve();
    std::uint32_t find(GrantRef ref) const;
    std::uint32_t find_and_pin(GrantRef ref);
    bool map_missing();
    bool choose_victims(std::size_t pages);
    void evict(std::uint32_t batch);
    void use(std::uint32_t batch);
    void unlink(std::uint32_t batch);
    void link_newest(std::uint32_t batch);
    void insert(GrantRef ref, std::uint32_t place);
    void erase(GrantRef ref);

    Hypervisor* hypervisor_;
    DomainId peer_;
    std::uint32_t capacity_, mapped_ = 0, allowed_ = ~std::uint32_t{0};
    unsigned shift_ = 0;
    std::vector<Slot> table_;  // open addressing, a power of two, at most half full
    std::vector<Page> pages_;  // by place; never more than capacity
    std::vector<Batch> batches_;
    std::vector<std::uint32_t> free_places_, free_batches_;
    std::vector<GrantRef> missing_;       // of the request at hand
    std::vector<std::uint32_t> victims_;  // batches that make room for it
    std::uint32_t newest_ = none, oldest_ = none;
};

}  // namespace caisson::block::backend
