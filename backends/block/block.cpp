#include "backends/block/block.h"

#include <sys/syscall.h>

#include "backends/block/control.h"
#include "backends/block/host_file.h"
#include "backends/block/host_nbd.h"
#include "backends/block/worker.h"

namespace caisson::block {

ClassHalf backend_half() {
    return {
        .control = []() -> std::unique_ptr<DeviceControl> { return std::make_unique<backend::Control>(); },
        .serve = backend::Worker::serve,
        .policy =
            [] {
                WorkerPolicy policy{.system_calls = {SYS_fallocate},  // discard in a memory disk
                                    .operations = {},
                                    .spin = std::chrono::microseconds(50)};  // a wake-up costs more than a request
                backend::allow_file_host(policy);
                backend::allow_nbd_host(policy);
                return policy;
            },
    };
}

}  // namespace caisson::block
