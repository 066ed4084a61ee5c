// A controller as PID 1 runs it: a child that is started again when it ends, and killed when its loop does not turn.
//
// The child has a pipe to us and writes a byte into it when it has set its watches, then every second from its loop
// (ControllerOptions::pulse). Threads: one, PID 1's.
#pragma once

#include <sys/types.h>

#include <array>
#include <functional>
#include <string>

#include "ring/fd.h"
#include "ring/log.h"
#include "ring/loop.h"

namespace caisson::service_vm {

class Service {
  public:
    // `name`: the subcommand of this very program, "devd" or "frontd".
    Service(Loop& loop, Log& log, std::string name) : loop_(loop), log_(log), name_(std::move(name)) {}

    // `serves` is called when a child has begun to serve: after each start.
    void start(std::function<void()> serves);
    // True when `child` was this one: it will be started again, unless it was asked to stop.
    bool ended(pid_t child, int status);
    void stop();

    bool running() const { return pid_ != 0; }
    // It has begun to serve, and its loop has turned within the last few seconds.
    bool alive() const;

  private:
    void launch();
    void hear();
    void look_after();

    Loop& loop_;
    Log& log_;
    const std::string name_;
    std::function<void()> serves_;
    pid_t pid_ = 0;
    bool stopping_ = false, served_ = false;
    Loop::Clock::time_point started_{}, pulse_{};
    Loop::Clock::duration pause_{};
    Fd pipe_;
    Loop::Handle pulses_, due_, watchdog_;
};

}  // namespace caisson::service_vm
