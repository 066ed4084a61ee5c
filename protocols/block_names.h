// What people call a disk, and the number that xenstore has of it. Source: xen-vbd-interface(7) of Xen's manual.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocols/words.h"

namespace caisson::block {

namespace detail {

inline constexpr std::uint32_t xvd_major = 202, sd_major = 8, extended = 1u << 28;
inline constexpr std::uint32_t ide_majors[] = {3, 22};
inline constexpr std::uint32_t most_disks = 1u << 20, most_partitions = 256;

struct DiskAndPartition {
    std::uint32_t disk = 0, partition = 0;
};

inline std::optional<std::uint32_t> take_number(std::string_view& text) {
    std::size_t digits = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
    const auto number = parse_decimal<std::uint32_t>(text.substr(0, digits));
    text.remove_prefix(digits);
    return number;
}

// "a" is 0, "z" 25, "aa" 26.
inline std::optional<std::uint32_t> take_letters(std::string_view& text) {
    std::uint32_t number = 0;
    std::size_t letters = 0;
    for (; letters < text.size() && text[letters] >= 'a' && text[letters] <= 'z'; ++letters) {
        number = number * 26 + static_cast<std::uint32_t>(text[letters] - 'a') + 1;
        if (number > most_disks) return std::nullopt;
    }
    text.remove_prefix(letters);
    if (letters == 0) return std::nullopt;
    return number - 1;
}

// What follows "xvd", "hd", "sd": letters, then perhaps a partition.
inline std::optional<DiskAndPartition> lettered(std::string_view rest, std::uint32_t disks, std::uint32_t partitions) {
    const auto disk = take_letters(rest);
    const auto partition = rest.empty() ? std::optional<std::uint32_t>(0) : take_number(rest);
    if (!disk || !partition || !rest.empty() || *disk >= disks || *partition >= partitions) return std::nullopt;
    return DiskAndPartition{*disk, *partition};
}

inline std::uint32_t xen_disk(DiskAndPartition at) {
    if (at.disk < 16 && at.partition < 16) return xvd_major << 8 | at.disk << 4 | at.partition;
    return extended | at.disk << 8 | at.partition;
}

}  // namespace detail

// The number for "xvda", "xvda1", "hdc", "sda3", "d0p1", or a number itself, as libxl computes it. Nothing: no such
// name.
inline std::optional<std::uint32_t> virtual_device(std::string_view name) {
    using namespace detail;
    if (name.starts_with("xvd")) {
        const auto at = lettered(name.substr(3), most_disks, most_partitions);
        return at ? std::optional(xen_disk(*at)) : std::nullopt;
    }
    if (name.starts_with("hd")) {
        const auto at = lettered(name.substr(2), 4, 64);
        return at ? std::optional(ide_majors[at->disk / 2] << 8 | (at->disk & 1) << 6 | at->partition) : std::nullopt;
    }
    if (name.starts_with("sd")) {
        const auto at = lettered(name.substr(2), 16, 16);
        return at ? std::optional(sd_major << 8 | at->disk << 4 | at->partition) : std::nullopt;
    }
    if (name.starts_with('d')) {
        name.remove_prefix(1);
        const auto disk = take_number(name);
        if (!disk || !name.starts_with('p')) return std::nullopt;
        name.remove_prefix(1);
        const auto partition = take_number(name);
        if (!partition || !name.empty() || *disk >= most_disks || *partition >= most_partitions) return std::nullopt;
        return xen_disk({*disk, *partition});
    }
    const auto number = parse_decimal<std::uint32_t>(name);
    return number && *number <= INT32_MAX ? number : std::nullopt;
}

// The same for programs in the domain, where "d5" is the whole disk, "d5p0".
inline std::optional<DeviceId> device_named(std::string_view name) {
    const bool whole = name.starts_with('d') && parse_decimal<std::uint32_t>(name.substr(1));
    const auto number = virtual_device(whole ? std::string(name) + "p0" : std::string(name));
    return number ? std::optional(DeviceId(*number)) : std::nullopt;
}

}  // namespace caisson::block
