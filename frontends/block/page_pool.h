// Which pages of the arena are in use. The last page that came back is the first to go out again: it is warm, here and
// in the backend's cache of persistent grants, and so a light load touches few pages.
//
// Threads: the device's. Nothing allocates after the construction but take_run().
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace caisson::block::frontend {

class PagePool {
  public:
    explicit PagePool(std::uint32_t pages) : taken_(pages, false) { free_.reserve(pages), refill(); }

    std::uint32_t size() const { return static_cast<std::uint32_t>(taken_.size()); }
    std::uint32_t available() const { return static_cast<std::uint32_t>(free_.size()); }

    // All of them or none.
    bool take(std::span<std::uint16_t> out) {
        if (out.size() > free_.size()) return false;
        for (std::uint16_t& page : out) {
            page = free_.back();
            free_.pop_back();
            taken_[page] = true;
        }
        return true;
    }
    void give_back(std::span<const std::uint16_t> pages) {
        for (std::size_t i = pages.size(); i-- > 0;) {
            taken_[pages[i]] = false;
            free_.push_back(pages[i]);
        }
    }

    // What a journal says is in use; refill() when all is claimed. False: there is no such page, or it was claimed.
    bool claim(std::uint16_t page) {
        if (page >= taken_.size() || taken_[page]) return false;
        taken_[page] = true;
        return true;
    }
    void refill() {
        free_.clear();
        for (std::uint32_t page = size(); page-- > 0;)
            if (!taken_[page]) free_.push_back(static_cast<std::uint16_t>(page));
    }

    // Neighbouring pages, from the far end.
    std::optional<std::uint16_t> take_run(std::uint32_t count) {
        std::uint32_t found = 0;
        for (std::uint32_t page = size(); page-- > 0;) {
            found = taken_[page] ? 0 : found + 1;
            if (count == 0 || found < count) continue;
            for (std::uint32_t i = 0; i < count; ++i) taken_[page + i] = true;
            refill();
            return static_cast<std::uint16_t>(page);
        }
        return std::nullopt;
    }
    void give_back_run(std::uint16_t first, std::uint32_t count) {
        std::fill_n(taken_.begin() + first, count, false);
        refill();
    }

  private:
    std::vector<bool> taken_;
    std::vector<std::uint16_t> free_;
};

}  // namespace caisson::block::frontend
