#include "backends/block/grants.h"

#include <algorithm>
#include <bit>

namespace caisson::block::backend {

std::optional<std::uint32_t> GrantCache::pin(GrantRef ref) {
    std::vector<std::uint32_t> places;
    if (!pin(std::span(&ref, 1), places)) return std::nullopt;
    return places.front();
}

bool GrantCache::pin(std::span<const GrantRef> refs, std::vector<std::uint32_t>& places) {
    if (refs.size() > capacity_) return false;
    if (table_.empty()) {
        if (capacity_ == 0) return refs.empty();
        reserve();
    }
    const std::size_t before = places.size();
    missing_.clear();
    for (const GrantRef ref : refs) {  // what is there first: it must not make room for the rest
        const std::uint32_t place = find_and_pin(ref);
        places.push_back(place);
        if (place == none) missing_.push_back(ref);
    }
    if (missing_.empty()) return true;
    const bool mapped = map_missing();
    for (std::size_t i = 0; i < refs.size(); ++i) {
        std::uint32_t& place = places[before + i];
        if (!mapped && place != none) unpin(place);
        if (mapped && place == none) place = find_and_pin(refs[i]);
    }
    if (!mapped) places.resize(before);
    return mapped;
}

void GrantCache::reserve() {
    const std::size_t slots = std::bit_ceil(std::size_t{capacity_} * 2);
    shift_ = 32u - static_cast<unsigned>(std::countr_zero(slots));
    table_.resize(slots);
    pages_.reserve(capacity_);
}

std::uint32_t GrantCache::find_and_pin(GrantRef ref) {
    const std::uint32_t place = find(ref);
    if (place == none) return none;
    use(pages_[place].batch);
    ++batches_[pages_[place].batch].pins;
    return place;
}

// A failure changes nothing: what was mapped stays, and stays usable (XSA-362).
bool GrantCache::map_missing() {
    if (allowed_ == 0) return false;
    std::ranges::sort(missing_, {}, &GrantRef::raw);  // a frontend may name a page twice
    const auto twice = std::ranges::unique(missing_, {}, &GrantRef::raw);
    missing_.erase(twice.begin(), twice.end());
    if (!choose_victims(missing_.size())) return false;
    allowed_ -= std::min(allowed_, std::max(pages_a_call, static_cast<std::uint32_t>(missing_.size())));
    auto mapping = hypervisor_->map(peer_, missing_, Access::read_write);
    if (!mapping) return false;
    for (const std::uint32_t victim : victims_) evict(victim);
    if (free_batches_.empty()) {
        free_batches_.push_back(static_cast<std::uint32_t>(batches_.size()));
        batches_.emplace_back();
    }
    const std::uint32_t number = free_batches_.back();
    free_batches_.pop_back();
    Batch& batch = batches_[number];
    batch.mapping = std::move(*mapping);
    for (std::size_t i = 0; i < missing_.size(); ++i) {
        if (free_places_.empty()) {
            free_places_.push_back(static_cast<std::uint32_t>(pages_.size()));
            pages_.emplace_back();
        }
        const std::uint32_t place = free_places_.back();
        free_places_.pop_back();
        pages_[place] = {batch.mapping.memory().subspan(i * page_size, page_size), missing_[i], number};
        batch.places.push_back(place);
        insert(missing_[i], place);
    }
    mapped_ += static_cast<std::uint32_t>(missing_.size());
    link_newest(number);
    return true;
}

// ---- Order of use --------------------------------------------------------------------------------------------------

bool GrantCache::choose_victims(std::size_t pages) {
    victims_.clear();
    std::size_t room = capacity_ - mapped_;
    for (std::uint32_t batch = oldest_; batch != none && room < pages; batch = batches_[batch].newer) {
        if (batches_[batch].pins != 0) continue;
        victims_.push_back(batch);
        room += batches_[batch].places.size();
    }
    return room >= pages;
}

void GrantCache::evict(std::uint32_t number) {
    Batch& batch = batches_[number];
    for (const std::uint32_t place : batch.places) {
        erase(pages_[place].ref);
        pages_[place] = {};
        free_places_.push_back(place);
    }
    mapped_ -= static_cast<std::uint32_t>(batch.places.size());
    batch.places.clear();
    batch.mapping = {};
    unlink(number);
    free_batches_.push_back(number);
}

void GrantCache::use(std::uint32_t batch) {
    if (batch == newest_) return;
    unlink(batch);
    link_newest(batch);
}

void GrantCache::unlink(std::uint32_t number) {
    const Batch& batch = batches_[number];
    (batch.newer == none ? newest_ : batches_[batch.newer].older) = batch.older;
    (batch.older == none ? oldest_ : batches_[batch.older].newer) = batch.newer;
}

void GrantCache::link_newest(std::uint32_t number) {
    batches_[number].newer = none;
    batches_[number].older = newest_;
    (newest_ == none ? oldest_ : batches_[newest_].newer) = number;
    newest_ = number;
}

// ---- The table -----------------------------------------------------------------------------------------------------

std::uint32_t GrantCache::find(GrantRef ref) const {
    std::size_t at = home(ref);
    while (table_[at].place != none && table_[at].ref != ref.raw) at = (at + 1) & (table_.size() - 1);
    return table_[at].place;
}

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
