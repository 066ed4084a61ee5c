// A regular file or a raw block device, through the worker's io_uring: nothing is read or written with the processor.
#pragma once

#include <memory>
#include <vector>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "ring/device.h"
#include "ring/fd.h"

namespace caisson::block::backend {

// Reads its part of the handover. `completions` outlives the host.
Result<std::unique_ptr<Host>> make_file_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                             Completions& completions);

}  // namespace caisson::block::backend
