// `caisson hypervisor`: the broker as a program.
#pragma once

#include <string>

#include "domains/hypervisor/limits.h"
#include "protocols/words.h"

namespace caisson::hypervisor {

struct RunOptions {
    std::string state;  // the state directory; made, mode 0700, when it is not there
    int ready_fd = -1;  // gets one line and is closed when Dom0 can connect; -1: the line goes to standard output
    Limits limits{};
};

// Opens STATE/dom0/hypervisor and STATE/dom0/xenstored and serves until SIGTERM or SIGINT; then it removes them.
// EBUSY when another broker runs in this state directory. Call it from the only thread of the process.
Status run_broker(const RunOptions& options);

}  // namespace caisson::hypervisor
