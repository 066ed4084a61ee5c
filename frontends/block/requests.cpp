#include "frontends/block/requests.h"

#include <algorithm>

namespace caisson::block::frontend {

Result<Requests> Requests::attach(std::span<Entry, most_tags> entries, std::uint32_t pages) {
    if (pages == 0 || pages > most_arena_pages) return host_fault(EBADMSG, "arena pages");
    Requests requests(entries, pages);
    for (std::uint32_t i = most_tags; i-- > 0;) {
        Entry& entry = entries[i];
        if (entry.state == Entry::free) {
            requests.free_.push_back(static_cast<std::uint16_t>(i));
            continue;
        }
        TRY(requests.claim(entry));
        requests.next_sequence_ = std::max(requests.next_sequence_, entry.sequence + 1);
    }
    requests.pool_.refill();
    return requests;
}

Status Requests::claim(const Entry& entry) {
    if (entry.state > Entry::expired) return host_fault(EBADMSG, "journal: state of a request");
    if (entry.operation > static_cast<std::uint8_t>(Operation::discard) || entry.secure > 1 || entry.borrowed > 1)
        return host_fault(EBADMSG, "journal: operation of a request");
    if (entry.told > (entry.state == Entry::taken ? 0 : 1)) return host_fault(EBADMSG, "journal: end of a request");
    const auto operation = static_cast<Operation>(entry.operation);
    const bool moves_data = operation != Operation::flush && operation != Operation::discard;
    if (moves_data && entry.length > pages_a_request * page_size)
        return host_fault(EBADMSG, "journal: length of a request");
    if (moves_data && (entry.skip >= page_size || entry.trim >= page_size || entry.skip + entry.trim > entry.length))
        return host_fault(EBADMSG, "journal: ends of a request");
    if (entry.pages != pages_of(operation, entry.length)) return host_fault(EBADMSG, "journal: pages of a request");
    for (unsigned i = 0; i < entry.pages; ++i)
        if (!pool_.claim(entry.page[i])) return host_fault(EBADMSG, "journal: a page of two requests");
    return {};
}

std::optional<Tag> Requests::prepare(const Wanted& wanted) {
    if (free_.empty()) return std::nullopt;
    const std::uint32_t pages = pages_of(wanted.operation, wanted.length);
    const Tag tag(free_.back());
    Entry& entry = entries_[tag.raw];
    const auto list = std::span(entry.page).first(pages);
    if (wanted.buffer) {
        for (std::uint32_t i = 0; i < pages; ++i) list[i] = static_cast<std::uint16_t>(*wanted.buffer + i);
    } else if (!pool_.take(list)) {
        return std::nullopt;
    }
    free_.pop_back();
    entry.error = 0;
    entry.told = 0;
    entry.sequence = next_sequence_++;
    entry.cookie = wanted.cookie;
    entry.offset = wanted.offset;
    entry.length = wanted.length;
    entry.operation = static_cast<std::uint8_t>(wanted.operation);
    entry.secure = wanted.secure ? 1 : 0;
    entry.borrowed = wanted.buffer ? 1 : 0;
    entry.pages = static_cast<std::uint16_t>(pages);
    entry.skip = wanted.skip;
    entry.trim = wanted.trim;
    return tag;
}

void Requests::release(Tag tag) {
    Entry& entry = entries_[tag.raw];
    entry.state = Entry::free;
    std::atomic_signal_fence(std::memory_order_release);
    if (entry.borrowed == 0) pool_.give_back(std::span(entry.page).first(entry.pages));
    free_.push_back(static_cast<std::uint16_t>(tag.raw));
}

void Requests::forget_expired() {
    for (const Tag tag : in_state(Entry::expired)) release(tag);
}

std::vector<Tag> Requests::in_state(std::uint32_t state) const {
    std::vector<Tag> tags;
    for (std::uint32_t i = 0; i < most_tags; ++i)
        if (entries_[i].state == state) tags.emplace_back(i);
    std::ranges::sort(tags, {}, [&](Tag tag) { return entries_[tag.raw].sequence; });
    return tags;
}

bool Requests::has_cookie(std::uint64_t cookie) const {
    return std::ranges::any_of(
        entries_, [&](const Entry& entry) { return entry.state != Entry::free && entry.cookie == cookie; });
}

}  // namespace caisson::block::frontend
