// One worker process as its controller sees it: started, armed, and some day dead.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "domains/sandbox/sandbox.h"
#include "domains/worker/mailbox.h"
#include "domains/worker/workers.h"

namespace caisson {

class WorkerHandle {
  public:
    struct Handlers {
        std::function<void()> armed;  // sealed, and verified to be
        std::function<void(Mail)> received;
        std::function<void(bool crashed)> died;  // the last call; false: killed from outside
    };
    static Result<std::unique_ptr<WorkerHandle>> start(Loop& loop, const WorkerOptions& options,
                                                       std::string_view device_class, Role role, Log& log,
                                                       Handlers handlers);
    ~WorkerHandle();  // kills it and waits for its end

    pid_t pid() const { return process_.pid; }
    bool armed() const { return armed_; }
    Mailbox& mailbox() { return *mailbox_; }
    void kill(const char* why);

    std::set<std::uint32_t> devices;  // whom it serves, or shall when it is armed

  private:
    WorkerHandle(Loop& loop, std::string name, Log& log, Isolated process, Handlers handlers);
    void receive(Mail mail);
    void arm();
    void copy_log(short events);
    void dead();
    void let_go();

    Loop& loop_;
    const std::string name_;
    Log& log_;  // one for all workers of a controller, so that its limit holds for them together
    Isolated process_;
    bool xen_ = false;
    Handlers handlers_;
    Fd output_;
    Fd mounts_;  // its mount namespace: see let_go()
    std::unique_ptr<Mailbox> mailbox_;
    bool armed_ = false, reaped_ = false;
    std::size_t logged_ = 0;  // bytes in this window
    Loop::Clock::time_point log_window_{};
    Loop::Handle death_, log_readable_, patience_;
};

}  // namespace caisson
