// A domain as its cfg file describes it. The keys are xl.cfg(5)'s; those that start with caisson_ are for the local
// hypervisor alone, and xl, which ignores keys it does not know, takes the same file.
//
// No key is swallowed: it is used, or named as not used here, or named as unknown; a wrong value is an error with its
// line. Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "domains/toolstack/cfg_file.h"
#include "domains/toolstack/device_spec.h"
#include "domains/toolstack/disk_spec.h"
#include "protocols/words.h"

namespace caisson::toolstack {

// preserve is destroy here: nothing of a dead process can be kept.
enum class OnExit : std::uint8_t { destroy, restart };

struct DomainConfig {
    std::string name;
    std::string uuid;         // made up when the file has none
    std::string type = "pv";  // as the file says; a local guest is a process tree whatever it says
    std::uint64_t memory_mib = 128;
    std::uint64_t maxmem_mib =
        128;  // what its processes may use, where the machine can bound it; never below memory_mib
    std::uint32_t vcpus = 1;
    bool driver_domain = false;
    OnExit on_poweroff = OnExit::destroy, on_crash = OnExit::destroy;
    std::vector<Vif> vifs;
    std::vector<Channel> channels;
    std::vector<Disk> disks;  // refined by caisson_disk

    // caisson_*
    // caisson_console_backend: who serves console 0 and, by default, channels; "none": the domain has no console 0.
    std::string console_backend = "0";
    std::string console_where;              // "FILE:LINE: caisson_console_backend"
    std::optional<ConsoleLog> console_log;  // caisson_console_log
    std::string run;                        // caisson_run: a command in the guest
    std::vector<Interface> interfaces;      // caisson_net
    std::vector<std::string> binds;         // caisson_bind: paths of the machine, writable in the domain
    std::string nftables;                   // caisson_nftables: the text of that file
    bool forward = false;                   // caisson_forward: routes between its interfaces
    Uplink uplink;                          // caisson_uplink
    std::string uplink_run;                 // caisson_uplink_run: a command in the sandbox's network
};

struct ParsedConfig {
    DomainConfig config;
    std::vector<std::string> warnings;  // "FILE:LINE: ..."; the domain can be made all the same
};

// The error's text has a line for each problem.
Result<ParsedConfig> parse_domain(CfgFile& file);

}  // namespace caisson::toolstack
