// Children of PID 1. Threads: one.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

namespace caisson::domain {

// Hard limits of open files in a domain. They are also how many descriptors a process may have on their way through
// sockets, which the kernel counts over all processes of a user: without root, over all domains and the hypervisor
// (unix(7), ETOOMANYREFS). So a guest comes to its end before the services of the others do, and those before the
// hypervisor, which has the machine's limit. 4096 is what ordinary programs were given for decades; the soft limit is
// the usual 1024, for those that use select().
inline constexpr unsigned guest_descriptors = 4096, guest_descriptors_soft = 1024, service_descriptors = 8192;
// Never more than there was. Async-signal-safe but for its error.
Status limit_descriptors(unsigned soft, unsigned hard);

struct ChildIo {
    int input = -1, output = -1;  // -1: /dev/null, and the parent's
    std::string terminal;         // a path: the child leads a session on it and all three descriptors are this terminal
    bool guest = false;           // a program of the guest's, with its limits
};

// Starts a program (found in PATH) with no signal blocked or ignored. An error of exec is the child's exit code 127.
Result<pid_t> spawn(const std::vector<std::string>& arguments, const ChildIo& io = {});

// Runs a program to its end with `input` on its standard input. Not being 0 is an error that quotes its last words.
Status run(const std::vector<std::string>& arguments, std::string_view input = {});

}  // namespace caisson::domain
