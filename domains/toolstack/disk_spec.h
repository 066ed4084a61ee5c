// An entry of disk=[...], as xl-disk-configuration(5) has it: both syntaxes, read by libxlutil, so that they mean what
// they mean to xl. Errors are a sentence without the place. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

namespace caisson::toolstack {

struct Disk {
    std::string backend = "0";  // name or number of the driver domain
    std::string target;         // as the backend's domain knows it: a path there, "memory:SIZE", "null:SIZE", "nbd:..."
    std::string vdev;           // "xvda"
    std::uint32_t id = 0;       // of vdev: the device's id
    std::string type;           // backendtype=: "phy", "qdisk", "tap"; of no use to our backend
    std::string script;         // passed on, not run
    bool read_only = false, cdrom = false, removable = false;
    bool direct_io_safe = false;
    std::optional<bool> discard;  // absent: where the disk is writable
    std::optional<bool> trusted;
    std::string where;  // "FILE:LINE: disk: entry 1"

    // caisson_disk=["vdev=xvda,rate-iops=1000,..."]: what xl has no word for.
    bool shared = false;                // others may write the file, too
    bool claimed = false;               // no file /dev/xvda in the guest: a program of it brings its own data path
    std::string attachment;             // how the guest's programs see it: "nbd", "fuse"; empty: the best there is
    std::string rate_iops, rate_bytes;  // "N" or "N,BURST"
    std::uint32_t sector_size = 0;      // 512 or 4096; 0: not said
    std::optional<bool> direct_io;
    std::optional<bool> logical_blocks;  // a frontend that counts sectors in units of the sector size
};

Result<Disk> parse_disk(std::string_view spec);

// An entry of caisson_disk=[...]: VDEV and the rest, put into the disk that it names.
Status refine_disk(std::vector<Disk>& disks, std::string_view spec);

}  // namespace caisson::toolstack
