// PID 1 of a local domain, and everything that is started with it: frontd, devd in a driver domain, the network's
// configuration, and the guest's own program on the console.
//
// What the domain is for decides when it ends: with caisson_run the domain powers off when that command ends, with its
// exit code; without, a shell waits on the console and the domain stays until it is destroyed.
#pragma once

namespace caisson::domain {

// `caisson domain-init`. Reads the plan from plan_descriptor; does not return before the domain ends.
int run_init();

}  // namespace caisson::domain
