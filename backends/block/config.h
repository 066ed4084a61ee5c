// What the controller tells a block worker about one disk: plain values, all of them checked.
#pragma once

#include <cstdint>

#include "protocols/block.h"

namespace caisson::block::backend {

enum class HostKind : std::uint8_t { null, memory, file, nbd };

// A token bucket each; 0: no limit. `burst`: how much may be saved up.
struct RateLimit {
    std::uint64_t requests_per_second = 0, requests_burst = 0;
    std::uint64_t bytes_per_second = 0, bytes_burst = 0;
};

struct Config {
    HostKind host = HostKind::null;
    Abi abi = Abi::native;
    std::uint32_t queues = 1;
    std::uint32_t ring_pages = 1;  // of each queue
    bool persistent = false;       // negotiated: both sides have feature-persistent
    bool sectors_are_blocks = false;
    bool in_memory = false;      // file: a RAM disk, or on a file system that lives in memory
    bool shared_target = false;  // file: other devices may write it too ("w!"): not locked
    Geometry geometry;
    RateLimit rate;
    std::uint32_t nbd_patience = 30;   // seconds that requests wait for a server that has gone
    std::uint32_t max_persistent = 0;  // grants kept mapped, of all queues together
    std::uint32_t bounce_bytes = 0;    // private buffers, for what is not persistent, of all queues together

    // What the key `sectors` says to a frontend that counts as this one does.
    std::uint64_t announced(std::uint64_t sectors) const {
        return sectors_are_blocks ? sectors / (geometry.sector_size / wire_sector) : sectors;
    }
};

// In the handover, in this order: Config; for each queue {ring GrantRefs, channel}; then the host's part: file
// {a descriptor made anew for each worker (Handover::put_each_time)}; nbd {a connected socket, made anew likewise; the
// line (nbd_connections.h)}; memory {a memfd}.

}  // namespace caisson::block::backend
