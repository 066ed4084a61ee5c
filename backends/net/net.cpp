#include "backends/net/net.h"

#include <sys/syscall.h>

#include "backends/net/control.h"
#include "backends/net/worker.h"

namespace caisson::net {

ClassHalf backend_half() {
    return {
        .control = []() -> std::unique_ptr<DeviceControl> { return std::make_unique<backend::Control>(); },
        .serve = backend::Worker::serve,
        .policy = [] { return WorkerPolicy{.system_calls = {SYS_readv, SYS_writev}, .operations = {}}; },
    };
}

}  // namespace caisson::net
