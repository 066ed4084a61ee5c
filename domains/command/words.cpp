#include <cstdio>

#include "domains/command/command.h"

namespace caisson::command {

void say(const std::string& text) {
    // One "caisson: " a line, so that the lines of a cfg file's problems stay apart from a guest's output.
    std::size_t at = 0;
    while (at <= text.size()) {
        const auto end = std::min(text.find('\n', at), text.size());
        std::fprintf(stderr, "caisson: %.*s\n", static_cast<int>(end - at), text.c_str() + at);
        at = end + 1;
    }
}

int complain(const Error& error) {
    // "No such process" is the kernel's answer to another question: a person wants to know which domains there are.
    if (error.err == ESRCH) {
        Error plain = error;
        plain.err = 0;
        say(plain.message() + "; 'caisson list' shows the domains that run");
        return exit_no_such_domain;
    }
    say(error.message());
    switch (error.err) {
        case ECONNREFUSED: return exit_no_hypervisor;
        case EPERM:
        case ENOSYS:
        case ENODEV:
        case EACCES: return exit_machine_lacks;
        default: return exit_failed;
    }
}

}  // namespace caisson::command
