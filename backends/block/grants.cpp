#include "backends/block/grants.h"

#include <bit>

namespace caisson::block::backend {

std::optional<std::uint32_t> GrantCache::pin(GrantRef ref) {
    if (table_.empty()) {
        if (capacity_ == 0) return std::nullopt;
        reserve();
    }
    for (std::size_t at = home(ref); table_[at].place != none; at = (at + 1) & (table_.size() - 1)) {
        if (table_[at].ref != ref.raw) continue;
        const std::uint32_t place = table_[at].place;
        use(place);
        ++pages_[place].pins;
        return place;
    }
    return map(ref);
}

void GrantCache::reserve() {
    const std::size_t slots = std::bit_ceil(std::size_t{capacity_} * 2);
    shift_ = 32u - static_cast<unsigned>(std::countr_zero(slots));
    table_.resize(slots);
    pages_.reserve(capacity_);
}

// A failure changes nothing: what was mapped stays, and stays usable (XSA-362).
std::optional<std::uint32_t> GrantCache::map(GrantRef ref) {
    std::uint32_t place = static_cast<std::uint32_t>(pages_.size());
    if (place == capacity_) {
        const auto victim = oldest_unpinned();
        if (!victim) return std::nullopt;
        place = *victim;
    }
    auto mapping = hypervisor_->map(peer_, std::span(&ref, 1), Access::read_write);
    if (!mapping) return std::nullopt;
    if (place == pages_.size()) {
        pages_.emplace_back();
    } else {
        erase(pages_[place].ref);
        unlink(place);
    }
    Page& page = pages_[place];
    page.mapping = std::move(*mapping);
    page.span = page.mapping.memory();
    page.ref = ref;
    page.pins = 1;
    insert(ref, place);
    link_newest(place);
    return place;
}

std::optional<std::uint32_t> GrantCache::oldest_unpinned() const {
    for (std::uint32_t place = oldest_; place != none; place = pages_[place].newer)
        if (pages_[place].pins == 0) return place;
    return std::nullopt;
}

// ---- Order of use --------------------------------------------------------------------------------------------------

void GrantCache::use(std::uint32_t place) {
    if (place == newest_) return;
    unlink(place);
    link_newest(place);
}

void GrantCache::unlink(std::uint32_t place) {
    const Page& page = pages_[place];
    (page.newer == none ? newest_ : pages_[page.newer].older) = page.older;
    (page.older == none ? oldest_ : pages_[page.older].newer) = page.newer;
}

void GrantCache::link_newest(std::uint32_t place) {
    pages_[place].newer = none;
    pages_[place].older = newest_;
    (newest_ == none ? oldest_ : pages_[newest_].newer) = place;
    newest_ = place;
}

// ---- The table -----------------------------------------------------------------------------------------------------

void GrantCache::insert(GrantRef ref, std::uint32_t place) {
    std::size_t at = home(ref);
    while (table_[at].place != none) at = (at + 1) & (table_.size() - 1);
    table_[at] = {ref.raw, place};
}

// Closes the gap, so that no probe ends too early.
void GrantCache::erase(GrantRef ref) {
    const std::size_t mask = table_.size() - 1;
    std::size_t gap = home(ref);
    while (table_[gap].place != none && table_[gap].ref != ref.raw) gap = (gap + 1) & mask;
    for (std::size_t at = (gap + 1) & mask; table_[at].place != none; at = (at + 1) & mask) {
        const std::size_t wanted = home(GrantRef(table_[at].ref));
        if (((at - wanted) & mask) < ((at - gap) & mask)) continue;  // its home lies behind the gap
        table_[gap] = table_[at];
        gap = at;
    }
    table_[gap] = {};
}

}  // namespace caisson::block::backend
