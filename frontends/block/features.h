// What a backend says of itself and of the disk, read strictly and clamped to what we can do.
//
// Stock blkback publishes queues and ring order in InitWait, and everything else only right before Connected; the disk
// may change its size later (blkif.h, "sectors"; Linux' blkfront looks when the backend writes Connected again). So
// there are two reads: Transport before the rings are made, Features once the backend is Connected and whenever a key
// of watched_features() changes.
#pragma once

#include <string>
#include <vector>

#include "protocols/block.h"
#include "ring/store.h"

namespace caisson::block::frontend {

struct Transport {
    std::uint32_t queues = 1, ring_order = 0;
    bool persistent = false;
};
Result<Transport> read_transport(const Directory& backend);

// Also a message to the worker: all of it is the controller's word.
struct Features {
    Geometry geometry;
    std::uint32_t segments = direct_segments;  // a request; more than direct_segments: indirect
    std::uint32_t unit = wire_sector;          // bytes that a sector counts on the wire
    bool connected = false;                    // the backend is Connected; before that, nothing else is known
};
static_assert(std::is_trivially_copyable_v<Features>);

// `own`: for the quirk that a toolstack writes where a backend is known to count in logical blocks.
Result<Features> read_features(const Directory& own, const Directory& backend);
std::vector<std::string> watched_features();

}  // namespace caisson::block::frontend
