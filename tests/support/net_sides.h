// The halves of net devices, and who serves them: what a controller and its workers do, without the sandbox. NetWorld
// (net_pair.h) makes guests of them.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "tests/support/device_side.h"

namespace caisson::test {

class NetSide;

// Where sides are served: this thread, or a process that serves all of its sides.
class NetCrew {
  public:
    explicit NetCrew(bool process) : process_wanted_(process), loop_(need(Loop::make())) {}
    ~NetCrew() { end_process(); }

    void add(NetSide& side);
    void remove(NetSide& side);
    void step() {
        if (!process_wanted_) (void)loop_->turn({});
    }
    // kill -9 of the process, and the next one at once.
    void kill() {
        end_process();
        start_process();
    }
    pid_t process() const { return process_; }

  private:
    void end_process() {
        if (process_ <= 0) return;
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
        process_ = 0;
    }
    void start_process();

    bool process_wanted_;
    std::unique_ptr<Loop> loop_;
    std::shared_ptr<void> group_;
    std::vector<NetSide*> sides_;
    pid_t process_ = 0;
};

class NetSide final : public DeviceSide {
  public:
    NetSide(LocalXen::Domain& domain, DeviceAddress address, std::unique_ptr<DeviceControl> control, ClassHalf half,
            NetCrew& crew)
        : DeviceSide(domain, address, std::move(control), half), crew_(crew) {
        open();
    }
    ~NetSide() override { close(); }

    // ---- For the crew ----
    Status serve(Loop& loop, std::shared_ptr<void>& group, bool elsewhere) {
        return DeviceSide::serve(loop, group, successor, elsewhere);
    }
    using DeviceSide::failed;
    using DeviceSide::unserve;
    bool successor = false;

  private:
    void start_worker(bool) override {
        successor = false;
        crew_.add(*this);
        if (!complaint) answer([this] { endpoint().attached(); });
    }
    void end_worker() override { crew_.remove(*this); }
    void broken_elsewhere(const Error&) override { stats().broken.add(1); }

    NetCrew& crew_;
};

inline void NetCrew::add(NetSide& side) {
    sides_.push_back(&side);
    if (process_wanted_) return kill();
    if (const Status served = side.serve(*loop_, group_, false); !served) side.failed(served.error());
}

inline void NetCrew::remove(NetSide& side) {
    if (std::erase(sides_, &side) == 0) return;
    side.unserve();
    if (!process_wanted_) return;
    end_process();
    if (!sides_.empty()) start_process();
}

inline void NetCrew::start_process() {
    process_ = ::fork();
    if (process_ != 0) {
        for (NetSide* side : sides_) side->successor = true;
        return;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto loop = need(Loop::make());
    std::shared_ptr<void> group;
    for (NetSide* side : sides_)
        if (const Status served = side->serve(*loop, group, true); !served) {
            std::fprintf(stderr, "worker: %s\n", served.error().message().c_str());
            ::_exit(1);
        }
    loop->run();
    ::_exit(0);
}

}  // namespace caisson::test
