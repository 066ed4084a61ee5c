// The host that a configuration names, made in the worker out of what the handover holds.
#pragma once

#include <memory>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "ring/device.h"

namespace caisson::block::backend {

// `completions` and the context's loop outlive the host.
Result<std::unique_ptr<Host>> make_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                        Completions& completions);

}  // namespace caisson::block::backend
