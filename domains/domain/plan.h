// What PID 1 of a local domain is told by the toolstack: the part of a cfg file that concerns the inside.
//
// It crosses the border into the domain once, as JSON in a sealed memory file, before anything of the guest runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

namespace caisson::domain {

// The configuration of an interface, applied whenever it appears (the frontend makes it, perhaps more than once).
struct InterfacePlan {
    std::string device;                  // "eth0"
    std::vector<std::string> addresses;  // with prefix
    std::string gateway;                 // empty: no default route
    bool operator==(const InterfacePlan&) const = default;
};

struct Plan {
    std::string name;
    std::uint16_t domid = 0;
    std::uint64_t memory_mib = 0;  // the size of /tmp and its like
    bool driver_domain = false;    // devd runs
    bool frontends = false;        // frontd runs
    bool console = false;          // there is a console 0
    bool forward = false;          // routes between its interfaces
    std::string nftables;          // the text of a rules file, not its name
    std::string run;               // a command for /bin/sh; empty: the domain only waits
    std::vector<InterfacePlan> interfaces;

    // The uplink: a second network inside the domain, joined by a veth pair (sandbox), or a machine's interface.
    std::string uplink_device, uplink_address, uplink_peer, uplink_gateway;
    std::string uplink_run;  // a command in the sandbox's network
    bool operator==(const Plan&) const = default;
};

std::string to_json(const Plan& plan);
Result<Plan> plan_from_json(std::string_view text);

}  // namespace caisson::domain
