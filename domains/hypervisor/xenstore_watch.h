// Watches: who wants to hear of which path. The table owns them all; the index by path only points (XSA-330, XSA-512).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "domains/hypervisor/xenstore_tree.h"

namespace caisson::hypervisor {

struct Watch {
    std::uint64_t connection = 0;
    std::string path;  // absolute, or one of the two special ones
    std::string token;
    std::size_t prefix = 0;  // a relative watch hears of paths without their first so many bytes

    std::string_view shown(std::string_view changed) const { return changed.substr(std::min(prefix, changed.size())); }
    std::size_t memory() const { return path.size() + token.size() + 2; }
};

inline constexpr std::string_view introduce_domain = "@introduceDomain";
inline constexpr std::string_view release_domain = "@releaseDomain";

class WatchTable {
  public:
    // Null: this connection has one of the same path and token.
    const Watch* add(Watch watch);
    // The memory that became free; 0: there was no such watch.
    std::size_t remove(std::uint64_t connection, std::string_view path, std::string_view token);
    // All of the connection. Returns how many and how much memory.
    std::pair<std::size_t, std::size_t> remove_all(std::uint64_t connection);

    // Calls `hit` for every watch at `path` and, unless the change is exact, at each directory above it. The cost
    // depends on the path's depth and the hits, not on the number of watches.
    void match(std::string_view path, Reach reach, const std::function<void(const Watch&)>& hit) const;

    std::size_t size() const { return watches_.size(); }
    std::size_t count(std::uint64_t connection) const;
    std::size_t memory(std::uint64_t connection) const;
    bool exact() const;  // the index names each watch once, and nothing else

  private:
    using Key = std::tuple<std::uint64_t, std::string, std::string>;
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };
    void forget(const Watch& watch);

    std::map<Key, Watch> watches_;
    std::unordered_map<std::string, std::vector<const Watch*>, Hash, std::equal_to<>> by_path_;
};

}  // namespace caisson::hypervisor
