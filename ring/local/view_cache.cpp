#include "ring/local/view_cache.h"

#include <algorithm>
#include <atomic>

#include "ring/detail/shared_access.h"

namespace caisson::local {

namespace {

constexpr std::size_t most_regions = 4096;  // of a peer, mapped at one time
constexpr std::size_t most_pages = 65536;   // of a peer: 256 MiB
constexpr std::size_t most_retired = 4096;  // of a peer; and their pages:
constexpr std::size_t most_retired_pages = most_pages;
constexpr std::size_t checked_per_fetch = 8;  // live regions looked at for being ended
constexpr std::uint64_t kept_fetches = 512;   // nobody holds so many views: a request has 256 pages, a ring 256 buffers

}  // namespace

// Acquire pairs with the broker's release: whoever sees the word sees the pages it was written for.
std::uint32_t ViewCache::Peer::word(std::uint32_t ref) const {
    return std::atomic_ref(const_cast<std::uint32_t&>(status[ref])).load(std::memory_order_acquire);
}

SharedSpan ViewCache::view(const GrantRange& range, Access access, GrantStatus& status) {
    if (!fits(range.offset, range.length, page_size)) {
        status = GrantStatus::bad_range;
        return {};
    }
    const std::uint32_t ref = range.ref.raw;
    for (int attempt = 0; attempt < 2; ++attempt) {
        Peer* peer = last_ != nullptr && last_->id == range.domain ? last_ : find(range.domain);
        if (peer != nullptr && ref < peer->slots.size()) {
            const std::uint32_t word = peer->word(ref);
            const Slot& slot = peer->slots[ref];
            if (word != 0 && word == slot.word) {
                if (access == Access::read_write && (word & status_writable) == 0) {
                    status = GrantStatus::bad_reference;
                    return {};
                }
                status = GrantStatus::okay;
                return detail::SharedAccess::span(slot.page + range.offset, range.length);
            }
        }
        if (attempt == 0 && !fetch(range.domain, range.ref)) break;
    }
    status = GrantStatus::bad_reference;
    return {};
}

ViewCache::Peer* ViewCache::find(DomainId id) {
    for (const auto& peer : peers_)
        if (peer->id == id) return last_ = peer.get();
    return nullptr;
}

bool ViewCache::fetch(DomainId id, GrantRef ref) {
    Peer* peer = find(id);
    if (peer != nullptr && peer->status != nullptr && ref.raw >= peer->entries) return false;
    auto answer =
        connection_.call<FetchReply>(Op::fetch, FetchRequest{.head = {}, .peer = id.raw, .zero = 0, .ref = ref.raw}, 1);
    if (!answer) return false;
    const FetchReply& found = answer->body;

    if (peer == nullptr) {
        peer = peers_.emplace_back(std::make_unique<Peer>()).get();
        peer->id = id;
    }
    if (peer->generation != found.generation) {
        reset(*peer);
        if (!open_status(*peer) || peer->generation != found.generation) return false;
    }
    if (found.pages == 0 || !fits(found.first, found.pages, std::uint32_t{peer->entries})) return false;
    if (!make_room(*peer, found.pages)) return false;
    const int fd = answer->descriptors[0].get();
    const Access access = (found.status & status_writable) != 0 ? Access::read_write : Access::read_only;
    if (!check_sealed(fd, found.pages * page_size)) return false;
    auto mapping = Mapping::map(fd, found.pages, access);
    if (!mapping) return false;

    if (peer->slots.size() < found.first + found.pages) peer->slots.resize(found.first + found.pages);
    for (std::uint32_t i = 0; i < found.pages; ++i)
        peer->slots[found.first + i] = {mapping->base() + i * page_size, found.status};
    peer->pages += found.pages;
    peer->regions.push_back({std::move(*mapping), found.first, found.status});
    return true;
}

Status ViewCache::open_status(Peer& peer) {
    auto answer =
        TRY((connection_.call<StatusReply>(Op::status, PeerRequest{.head = {}, .peer = peer.id.raw, .zero = {}}, 1)));
    const std::size_t pages = (answer.body.entries * sizeof(std::uint32_t) + page_size - 1) / page_size;
    TRY(check_sealed(answer.descriptors[0].get(), answer.body.entries * sizeof(std::uint32_t)));
    peer.status_memory = TRY(Mapping::map(answer.descriptors[0].get(), pages, Access::read_only));
    peer.status = reinterpret_cast<const std::uint32_t*>(peer.status_memory.base());
    peer.entries = answer.body.entries;
    peer.generation = answer.body.generation;
    return {};
}

// Old mappings go; ended regions are found a few at a time; then the oldest living one has to go.
bool ViewCache::make_room(Peer& peer, std::size_t pages) {
    ++peer.fetches;
    while (!peer.retired.empty() && peer.fetches - peer.retired.front().since > kept_fetches) {
        peer.retired_pages -= peer.retired.front().mapping.size() / page_size;
        peer.retired.pop_front();
    }
    for (std::size_t i = 0; i < checked_per_fetch && !peer.regions.empty(); ++i) {
        Region region = std::move(peer.regions.front());
        peer.regions.pop_front();
        if (peer.word(region.first) == region.word)
            peer.regions.push_back(std::move(region));
        else
            retire(peer, std::move(region));
    }
    while (!peer.regions.empty() && (peer.regions.size() >= most_regions || peer.pages + pages > most_pages)) {
        Region region = std::move(peer.regions.front());
        peer.regions.pop_front();
        retire(peer, std::move(region));
    }
    return peer.retired.size() < most_retired && peer.retired_pages + pages <= most_retired_pages;
}

void ViewCache::retire(Peer& peer, Region region) {
    const std::size_t pages = region.mapping.size() / page_size;
    for (std::size_t i = 0; i < pages; ++i) {
        Slot& slot = peer.slots[region.first + i];
        if (slot.word == region.word) slot = {};
    }
    peer.pages -= pages;
    peer.retired_pages += pages;
    peer.retired.push_back({std::move(region.mapping), peer.fetches});
}

void ViewCache::reset(Peer& peer) {
    while (!peer.regions.empty()) {
        Region region = std::move(peer.regions.front());
        peer.regions.pop_front();
        retire(peer, std::move(region));
    }
    peer.slots.clear();
    peer.status = nullptr;
    peer.entries = 0;
    peer.generation = 0;
}

std::size_t ViewCache::mapped_regions() const {
    std::size_t count = 0;
    for (const auto& peer : peers_) count += peer->regions.size() + peer->retired.size();
    return count;
}

}  // namespace caisson::local
