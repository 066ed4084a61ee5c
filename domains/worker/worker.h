// The worker process: gets its descriptors, seals itself, serves. It has no xenstore connection and can open nothing.
#pragma once

#include "ring/device.h"

namespace caisson {

// The main of `caisson worker`: does not return before the controller closes its end of `control` (descriptor 3 as
// spawn_isolated() leaves it). The return value is the exit status; every reason to leave early is logged.
int run_worker(int control, Catalogue catalogue);

}  // namespace caisson
