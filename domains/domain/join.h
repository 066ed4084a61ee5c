// A command inside a running domain, started from outside: `caisson exec`.
//
// The process joins the domain's namespaces, the user namespace first, so it has no rights there that the domain's root
// has not. The domain is hostile: what it can reach of us are three descriptors and, with `terminal`, a terminal of its
// own, never ours (a terminal that is not the controlling one cannot be typed into).
//
// Threads: forks, so the calling process has one thread.
#pragma once

#include <string>
#include <vector>

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::domain {

struct JoinOptions {
    std::vector<std::string> command;
    bool terminal =
        false;  // a new terminal in the domain, relayed to and from this process's standard input and output
    std::vector<std::string> environment;  // "TERM=xterm", added to the domain's usual one
};

// The command's exit code: 128 + N when signal N killed it, 127 when it is not there. `init`: a pidfd of the domain's
// PID 1. An error (ESRCH: PID 1 is dead) means that nothing was run.
Result<int> run_inside(const Fd& init, const JoinOptions& options);

}  // namespace caisson::domain
