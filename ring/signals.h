// Signals as a descriptor to poll: they are blocked from here on, in this thread and in those that it starts, and read
// as signalfd_siginfo. Before any other thread is started.
#pragma once

#include <signal.h>
#include <sys/signalfd.h>

#include <initializer_list>

#include "ring/fd.h"

namespace caisson {

inline Result<Fd> take_signals(std::initializer_list<int> which) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : which) ::sigaddset(&set, signal);
    if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return host_fault(errno, "sigprocmask");
    Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) return host_fault(errno, "signalfd");
    return fd;
}

}  // namespace caisson
