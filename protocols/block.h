// The block device ("vbd"): layout, limits, xenstore keys, and the checks that turn a frontend's bytes into commands.
//
// Source: xen/io/blkif.h (Xen 4.17, and where it says so HEAD, whose units we follow: a sector on the wire is always
// 512 bytes, whatever the disk's sector-size). Keys marked "not in blkif.h" are Linux' or libxl's. Names are ours;
// every layout is asserted here, and against blkif.h in tests/abi/.
//
//   block.h           the wire: slots of both layouts, limits, keys
//   block_commands.h  commands out of slots and back: parse(), parse_segments(), encode()
//
// Faults. Slots have a fixed size, so a malformed request never makes it unclear where the next one starts: it is
// *rejected* (answered with an error, as blkback does) and the device goes on. Only a broken index breaks the device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "protocols/words.h"

namespace caisson::block {

inline constexpr std::string_view device_class = "vbd";

// ---- Limits --------------------------------------------------------------------------------------------------------

inline constexpr unsigned max_queues = 8;
inline constexpr unsigned max_ring_order = 4;           // 16 pages a ring, as XENBUS_MAX_RING_GRANT_ORDER
inline constexpr unsigned direct_segments = 11;         // BLKIF_MAX_SEGMENTS_PER_REQUEST
inline constexpr unsigned indirect_pages = 8;           // BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST
inline constexpr unsigned max_indirect_segments = 256;  // ours: 1 MiB a request (blkback: 256, too)
inline constexpr std::uint32_t wire_sector = 512;       // bytes: the unit of every sector on the wire
inline constexpr unsigned sectors_a_page = page_size / wire_sector;
inline constexpr std::uint32_t max_request_bytes = max_indirect_segments * page_size;

// ---- The wire ------------------------------------------------------------------------------------------------------

namespace operation {  // BLKIF_OP_*
inline constexpr std::uint8_t read = 0, write = 1, write_barrier = 2, flush_diskcache = 3, reserved_1 = 4, discard = 5,
                              indirect = 6;
}
inline constexpr std::uint8_t discard_flag_secure = 1;  // BLKIF_DISCARD_SECURE

namespace status {  // BLKIF_RSP_*
inline constexpr std::int16_t okay = 0, error = -1, not_supported = -2;
}

struct Segment {  // blkif_request_segment; first and last sector of the page, both inclusive
    std::uint32_t gref;
    std::uint8_t first_sect, last_sect;
    std::uint16_t pad;
};
static_assert(sizeof(Segment) == 8);
inline constexpr unsigned segments_a_page = page_size / sizeof(Segment);

// A request is a head and a tail. The head differs between the ABIs (a 64-bit integer is aligned to 8 bytes or to 4),
// the tail does not: it is one of
//     read, write, barrier, flush   seg[11]
//     indirect                      handle u16, pad u16, indirect_grefs[8]   (head: operation 6, the real one in
//                                   `count`, and the number of segments in `handle`)
//     discard                       nr_sectors u64                           (head: the flag in `count`)
inline constexpr std::size_t tail_bytes = direct_segments * sizeof(Segment);
using Tail = std::array<std::byte, tail_bytes>;

struct Native {  // "x86_64-abi", and "arm-abi", which aligns alike
    struct Request {
        std::uint8_t operation, count;
        std::uint16_t handle;
        std::uint32_t pad;
        std::uint64_t id, sector;
        Tail tail;
    };
    struct Response {
        std::uint64_t id;
        std::uint8_t operation, pad;
        std::int16_t status;
        std::uint32_t pad2;
    };
};
static_assert(sizeof(Native::Request) == 112 && sizeof(Native::Response) == 16);

struct Narrow {  // "x86_32-abi"
    struct Word64 {
        std::uint32_t low, high;
        constexpr std::uint64_t value() const { return std::uint64_t{high} << 32 | low; }
        static constexpr Word64 of(std::uint64_t v) {
            return {static_cast<std::uint32_t>(v), static_cast<std::uint32_t>(v >> 32)};
        }
    };
    struct Request {
        std::uint8_t operation, count;
        std::uint16_t handle;
        Word64 id, sector;
        Tail tail;
    };
    struct Response {
        Word64 id;
        std::uint8_t operation, pad;
        std::int16_t status;
    };
};
static_assert(sizeof(Narrow::Request) == 108 && sizeof(Narrow::Response) == 12);

// The key "protocol" of the frontend. Absent: native, as blkback takes it.
enum class Abi : std::uint8_t { native, x86_32 };
inline constexpr std::string_view protocol_native =
#if defined(__x86_64__)
    "x86_64-abi";
#else
    "arm-abi";
#endif
inline constexpr std::string_view protocol_x86_64 = "x86_64-abi", protocol_x86_32 = "x86_32-abi",
                                  protocol_arm = "arm-abi";

// ---- xenstore ------------------------------------------------------------------------------------------------------

namespace key {
// Backend's directory: what the toolstack (libxl) wrote there.
inline constexpr std::string_view mode = "mode";      // "r" or "w"
inline constexpr std::string_view params = "params";  // the target: a path, or "memory:BYTES", "null:BYTES", "nbd:..."
inline constexpr std::string_view type = "type";      // "phy", "file", "qdisk" ...: of no use to us
inline constexpr std::string_view dev = "dev";        // "xvda"
inline constexpr std::string_view device_type = "device-type";  // "disk" or "cdrom"; also in the frontend's directory
inline constexpr std::string_view removable = "removable";
inline constexpr std::string_view direct_io_safe = "direct-io-safe";
inline constexpr std::string_view discard_enable = "discard-enable";
inline constexpr std::string_view hotplug_status = "hotplug-status";  // not in blkif.h
inline constexpr std::string_view physical_device_path = "physical-device-path";
// Backend's directory: features and transport.
inline constexpr std::string_view feature_barrier = "feature-barrier";
inline constexpr std::string_view feature_flush = "feature-flush-cache";
inline constexpr std::string_view feature_discard = "feature-discard";
inline constexpr std::string_view feature_persistent = "feature-persistent";  // both directories
inline constexpr std::string_view max_indirect_segments = "feature-max-indirect-segments";
inline constexpr std::string_view max_ring_order = "max-ring-page-order";
inline constexpr std::string_view max_queues = "multi-queue-max-queues";
inline constexpr std::string_view online_resize = "feature-online-resize";  // not in blkif.h: win-xenvbd
// Backend's directory: the disk. `sectors` counts 512 bytes. To resize online: rewrite it, then write state Connected.
inline constexpr std::string_view sectors = "sectors";
inline constexpr std::string_view sector_size = "sector-size";
inline constexpr std::string_view physical_sector_size = "physical-sector-size";
inline constexpr std::string_view info = "info";  // VDISK_*, see below
inline constexpr std::string_view discard_alignment = "discard-alignment";
inline constexpr std::string_view discard_granularity = "discard-granularity";
inline constexpr std::string_view discard_secure = "discard-secure";
// Frontend's directory.
inline constexpr std::string_view protocol = "protocol";
inline constexpr std::string_view ring_order = "ring-page-order";
inline constexpr std::string_view num_queues = "multi-queue-num-queues";
inline constexpr std::string_view ring_ref = "ring-ref";  // order 0; else ring-ref0 ...; flat, or in queue-N/ (N >= 2)
inline constexpr std::string_view event_channel = "event-channel";
inline constexpr std::string_view virtual_device = "virtual-device";
inline constexpr std::string_view trusted = "trusted";  // written by the toolstack; absent: we do not trust
// Ours, in either directory, written by the toolstack where a peer is known to count sectors in logical blocks (Xen
// 4.17's blkif.h with feature-large-sector-size; QEMU's `sectors`): "1".
inline constexpr std::string_view quirk_logical_blocks = "caisson-sectors-are-blocks";
// Ours, in the backend's directory, written by the toolstack.
inline constexpr std::string_view direct_io = "caisson-direct-io";             // "0" or "1"; absent: where it works
inline constexpr std::string_view wished_sector_size = "caisson-sector-size";  // of a file: "512" or "4096"
inline constexpr std::string_view rate_requests = "caisson-rate-iops";         // "N[,BURST]": requests a second
inline constexpr std::string_view rate_bytes = "caisson-rate-bytes";           // "N[,BURST]": bytes a second
}  // namespace key

namespace disk_info {  // VDISK_*
inline constexpr std::uint32_t cdrom = 1, removable = 2, read_only = 4;
}

// What a disk is. The backend publishes it, the frontend reads it.
struct Geometry {
    std::uint64_t sectors = 0;  // of 512 bytes
    std::uint32_t sector_size = 512, physical_sector_size = 512;
    std::uint32_t info = 0;                                        // disk_info
    std::uint32_t discard_granularity = 0, discard_alignment = 0;  // bytes
    bool flush = false, barrier = false, discard = false, discard_secure = false;

    bool read_only() const { return (info & disk_info::read_only) != 0; }
    std::uint64_t bytes() const { return sectors * wire_sector; }
};

}  // namespace caisson::block
