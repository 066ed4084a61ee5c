#include "domains/hypervisor/xenstore_watch.h"

#include <algorithm>
#include <limits>

namespace caisson::hypervisor {

const Watch* WatchTable::add(Watch watch) {
    Key key{watch.connection, watch.path, watch.token};
    const auto [entry, added] = watches_.try_emplace(std::move(key), std::move(watch));
    if (!added) return nullptr;
    by_path_[entry->second.path].push_back(&entry->second);
    return &entry->second;
}

void WatchTable::forget(const Watch& watch) {
    const auto entry = by_path_.find(watch.path);
    if (entry == by_path_.end()) return;
    std::erase(entry->second, &watch);
    if (entry->second.empty()) by_path_.erase(entry);
}

std::size_t WatchTable::remove(std::uint64_t connection, std::string_view path, std::string_view token) {
    const auto entry = watches_.find(Key{connection, std::string(path), std::string(token)});
    if (entry == watches_.end()) return 0;
    const std::size_t memory = entry->second.memory();
    forget(entry->second);
    watches_.erase(entry);
    return memory;
}

std::pair<std::size_t, std::size_t> WatchTable::remove_all(std::uint64_t connection) {
    std::pair<std::size_t, std::size_t> freed{};
    auto entry = watches_.lower_bound(Key{connection, "", ""});
    while (entry != watches_.end() && entry->second.connection == connection) {
        freed.first += 1;
        freed.second += entry->second.memory();
        forget(entry->second);
        entry = watches_.erase(entry);
    }
    return freed;
}

void WatchTable::match(std::string_view path, Reach reach, const std::function<void(const Watch&)>& hit) const {
    if (reach == Reach::none || by_path_.empty()) return;
    for (std::string_view at = path;;) {
        if (const auto entry = by_path_.find(at); entry != by_path_.end())
            for (const Watch* watch : entry->second) hit(*watch);
        if (reach == Reach::exact || at == "/" || !at.starts_with('/')) return;
        at = parent_path(at);
    }
}

std::size_t WatchTable::count(std::uint64_t connection) const {
    return static_cast<std::size_t>(std::distance(watches_.lower_bound(Key{connection, "", ""}),
                                                  watches_.lower_bound(Key{connection + 1, "", ""})));
}

std::size_t WatchTable::memory(std::uint64_t connection) const {
    std::size_t memory = 0;
    for (auto entry = watches_.lower_bound(Key{connection, "", ""});
         entry != watches_.end() && entry->second.connection == connection; ++entry)
        memory += entry->second.memory();
    return memory;
}

bool WatchTable::exact() const {
    std::size_t indexed = 0;
    for (const auto& [path, watches] : by_path_) {
        if (watches.empty()) return false;
        for (const Watch* watch : watches) {
            const auto entry = watches_.find(Key{watch->connection, path, watch->token});
            if (entry == watches_.end() || &entry->second != watch) return false;
            ++indexed;
        }
    }
    return indexed == watches_.size();
}

}  // namespace caisson::hypervisor
