#include "backends/block/hosts.h"

#include "backends/block/host_file.h"
#include "backends/block/host_memory.h"
#include "backends/block/host_nbd.h"
#include "backends/block/host_null.h"

namespace caisson::block::backend {

Result<std::unique_ptr<Host>> make_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                        Completions& completions) {
    switch (config.host) {
        case HostKind::null: return std::make_unique<NullHost>(config.geometry, completions);
        case HostKind::memory: return MemoryHost::make(config, handover, completions);
        case HostKind::file: return make_file_host(context, config, handover, completions);
        case HostKind::nbd: return make_nbd_host(context, config, handover, completions);
    }
    return host_fault(EINVAL, "vbd: no such host");
}

}  // namespace caisson::block::backend
