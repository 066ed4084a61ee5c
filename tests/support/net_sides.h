// The halves of net devices, and who serves them: what a controller and its workers do, without the sandbox. NetWorld
// (net_pair.h) makes guests of them.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "ring/device.h"
#include "ring/endpoint.h"
#include "ring/local/port.h"
#include "tests/support/local_xen.h"

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

// One half of one device: what a controller does, without its sandbox.
class NetSide final : public EndpointHost {
  public:
    NetSide(LocalXen::Domain& domain, DeviceAddress address, std::unique_ptr<DeviceControl> control, ClassHalf half,
            NetCrew& crew)
        : domain_(domain),
          half_(half),
          crew_(crew),
          log_(address.name()),
          store_(need(Store::open(domain.xenstored))),
          peer_(address.peer()),
          endpoint_(std::make_unique<Endpoint>(address, std::move(control), *domain.hypervisor, store_, *this, log_)) {
        need(store_.watch(peer_directory(address), "peer"));
        need(store_.watch(own_directory(address), "own"));
        stats_ = shared_bytes(sizeof(DeviceStats));
        new (stats_.data()) DeviceStats;
        endpoint_->look();
    }
    ~NetSide() override {
        crew_.remove(*this);
        endpoint_.reset();
        if (!journal_.empty()) ::munmap(journal_.data(), journal_.size());
        ::munmap(stats_.data(), stats_.size());
    }

    void attach(Handover handover) override {
        handover_ = std::move(handover);
        if (!journal_.empty()) ::munmap(journal_.data(), journal_.size());
        journal_ = shared_bytes(std::max<std::size_t>(handover_.journal_bytes, 1));
        agent_ = need(domain_.hypervisor->restrict_to(std::span(&peer_, 1)));
        successor = false;
        crew_.add(*this);
        if (!complaint) answers_.push_back([this] { endpoint_->attached(); });
    }
    void detach() override {
        crew_.remove(*this);
        handover_ = {};
        agent_.reset();
        answers_.push_back([this] { endpoint_->detached(); });
    }
    void update(std::vector<std::byte> message) override {
        if (worker_) (void)worker_->update(message);
    }
    void timer(std::optional<std::chrono::milliseconds> delay) override {
        due_ = delay ? std::optional(Loop::Clock::now() + *delay) : std::nullopt;
    }
    void step() {
        bool look = false;
        while (store_.take_event()) look = true;
        if (look) endpoint_->look();
        for (auto answers = std::exchange(answers_, {}); auto& answer : answers) answer();
        if (due_ && Loop::Clock::now() >= *due_) due_.reset(), endpoint_->expired();
    }

    Endpoint& endpoint() { return *endpoint_; }
    DeviceWorker* worker() { return worker_.get(); }
    Store& store() { return store_; }
    Hypervisor& hypervisor() { return *domain_.hypervisor; }
    DeviceStats& stats() { return *reinterpret_cast<DeviceStats*>(stats_.data()); }

    // ---- For the crew ----
    Status serve(Loop& loop, std::shared_ptr<void>& group, bool in_process) {
        Fd agent = TRY(agent_.duplicate());
        hypervisor_ = TRY(local::open_restricted(std::move(agent)));
        HandoverReader reader = TRY(handover_.reader());
        WorkerContext context{.loop = loop,
                              .hypervisor = *hypervisor_,
                              .address = endpoint_->address(),
                              .journal = journal_.first(handover_.journal_bytes),
                              .successor = successor,
                              .stats = stats(),
                              .log = log_,
                              .broken =
                                  [this, in_process](const Error& error) {
                                      if (in_process) {  // seen through stats()
                                          log_.say(error.message());
                                          return stats().broken.add(1);
                                      }
                                      answers_.push_back([this, error] {
                                          complaint = error;
                                          endpoint_->broken(error);
                                      });
                                  },
                              .publish =
                                  [this, in_process](std::string_view key, std::string_view value) {
                                      if (in_process) return;
                                      answers_.push_back([this, key = std::string(key), value = std::string(value)] {
                                          endpoint_->publish(key, value);
                                      });
                                  },
                              .group = group};
        worker_ = TRY(half_.serve(std::move(context), reader));
        return {};
    }
    void unserve() {
        worker_.reset();
        hypervisor_.reset();
    }
    void failed(const Error& error) {
        complaint = error;
        answers_.push_back([this, error] { endpoint_->failed(error); });
    }
    bool successor = false;
    std::optional<Error> complaint;

  private:
    static std::span<std::byte> shared_bytes(std::size_t size) {
        void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::runtime_error("mmap failed");
        return {static_cast<std::byte*>(memory), size};
    }

    LocalXen::Domain& domain_;
    ClassHalf half_;
    NetCrew& crew_;
    Log log_;
    Store store_;
    DomainId peer_;
    std::span<std::byte> stats_, journal_;
    Handover handover_;
    Fd agent_;
    std::unique_ptr<Hypervisor> hypervisor_;
    std::unique_ptr<DeviceWorker> worker_;
    std::vector<std::function<void()>> answers_;
    std::optional<Loop::Clock::time_point> due_;
    std::unique_ptr<Endpoint> endpoint_;
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
