// What one domain may use up. Every quota that is hit says its name in the error.
#pragma once

#include <chrono>
#include <cstdint>

namespace caisson::hypervisor {

struct Limits {
    std::uint32_t domains = 256;           // alive at one time
    std::uint32_t grants = 65536;          // references of a domain: 256 MiB of its memory shared at one time
    std::uint32_t regions = 4096;          // share() calls alive; a descriptor of the broker each
    std::uint32_t pages_per_share = 4096;  // the broker zeroes them while the others wait: about 3 ms
    std::uint32_t mappings = 16384;        // regions of others that a domain has mapped (maptrack of Xen)
    std::uint32_t mapped_pages = 262144;   // in those regions, 1 GiB: what dead domains leave to it stays in memory
    std::uint32_t ports = 1023;            // libxl's max_event_channels; two descriptors of the broker each
    std::uint32_t connections = 256;       // sockets to the broker, restricted ones too
    std::uint32_t messages_per_turn = 4;   // of one connection before the next one is served
    // Of the broker's time before the others are served, over all connections of the domain; one call may exceed it.
    std::chrono::nanoseconds time_per_turn = std::chrono::milliseconds(1);
    // Descriptors that all domains together may make the broker hold. The last quarter is divided among the domains
    // that live: a domain that uses more than its share of that gets nothing more of it, so a greedy one starves only
    // itself.
    std::uint32_t descriptors = 12288;
};

inline constexpr std::uint32_t first_grant = 8;  // GNTTAB_NR_RESERVED_ENTRIES: 0 to 7 belong to the toolstack on Xen

}  // namespace caisson::hypervisor
