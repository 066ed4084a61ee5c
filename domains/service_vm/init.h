// PID 1 of a service VM on Xen: brings up what its recipe (/recipe) says, runs the controllers, tells the control
// domain how it is, and powers off in order.
//
// On control/shutdown the kernel itself answers (drivers/xen/manage.c clears the node) and runs /sbin/poweroff or
// /sbin/reboot: in the image these are this program, too, and tell PID 1 by a signal. So there is one path, whatever
// asked for the end: every device says Closed, then the machine goes.
#pragma once

#include "domains/service_vm/kernel.h"

namespace caisson::service_vm {

// PID 1. Does not return; an error on the way is told to the console, and the domain goes on without what failed:
// somebody may want to look at it, and what is not ready never says so.
[[noreturn]] void run_init();

// /sbin/poweroff and /sbin/reboot: asks PID 1. The program's exit code.
int ask_for_end(End how);

}  // namespace caisson::service_vm
