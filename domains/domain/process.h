// Children of PID 1. Threads: one.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"

namespace caisson::domain {

struct ChildIo {
    int input = -1, output = -1;  // -1: /dev/null, and the parent's
    std::string terminal;         // a path: the child leads a session on it and all three descriptors are this terminal
};

// Starts a program (found in PATH) with no signal blocked or ignored. An error of exec is the child's exit code 127.
Result<pid_t> spawn(const std::vector<std::string>& arguments, const ChildIo& io = {});

// Runs a program to its end with `input` on its standard input. Not being 0 is an error that quotes its last words.
Status run(const std::vector<std::string>& arguments, std::string_view input = {});

}  // namespace caisson::domain
