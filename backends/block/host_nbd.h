// An NBD server (nbdkit, qemu-nbd), by libnbd in the sealed worker over a socket that the controller connected.
#pragma once

#include <memory>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "ring/device.h"

namespace caisson::block::backend {

// Reads its part of the handover. `completions` outlives the host.
Result<std::unique_ptr<Host>> make_nbd_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                            Completions& completions);

}  // namespace caisson::block::backend
