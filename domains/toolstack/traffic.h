// What the devices of all domains carried: read from the statistics pages that each domain's controllers and workers
// write in the domain's own /run/caisson/stats.
//
// A domain is hostile, its files too: they are opened without following a link out of the folder, must be regular and
// of the right size, are copied, and every number in them is only a number. Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "domains/toolstack/state.h"
#include "domains/toolstack/toolstack.h"
#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::toolstack {

struct DeviceTraffic {
    std::string device_class;  // printable
    std::uint16_t frontend = 0, backend = 0;
    std::uint32_t device = 0;
    bool is_backend = false;
    // In and out as the domain sees it: a frontend's out is its backend's in.
    std::uint64_t bytes_in = 0, bytes_out = 0, requests = 0, dropped = 0, errors = 0, restarts = 0, broken = 0;
};

struct DomainTraffic {
    std::uint16_t id = 0;
    std::string name;
    std::vector<DeviceTraffic> devices;
    std::uint64_t total_in() const;
    std::uint64_t total_out() const;
};

// The pages in an open folder; what is no page is left out, at most 256 are read.
std::vector<DeviceTraffic> read_stats(const Fd& folder);

Result<std::vector<DomainTraffic>> traffic(Toolstack& toolstack);

// A table; `before` (of `seconds` ago) turns totals into rates as well, empty: totals only.
std::string traffic_table(const std::vector<DomainTraffic>& now, const std::vector<DomainTraffic>& before,
                          double seconds);
std::string traffic_json(const std::vector<DomainTraffic>& now);

}  // namespace caisson::toolstack
