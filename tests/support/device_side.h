// One half of one device: what a controller does between xenstore and a worker, without its sandbox. How the worker is
// served is a class's: in this thread, or in a process of its own, which can be killed. And what every world of such
// halves is asked.
#pragma once

#include <dirent.h>
#include <sys/mman.h>

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ring/device.h"
#include "ring/endpoint.h"
#include "ring/local/port.h"
#include "tests/support/local_xen.h"

namespace caisson::test {

// Memory that processes forked later share: a journal, a statistics page.
class PrivateMemory {
  public:
    explicit PrivateMemory(std::size_t size) : size_(size) {
        memory_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    }
    PrivateMemory(const PrivateMemory&) = delete;
    ~PrivateMemory() { ::munmap(memory_, size_); }
    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_), size_}; }

  private:
    std::size_t size_;
    void* memory_;
};

class DeviceSide : public EndpointHost {
  public:
    // ---- EndpointHost: answers are given later, from step() ----
    void attach(Handover handover) override {
        handover_ = std::move(handover);
        journal_ = std::make_unique<PrivateMemory>(std::max<std::size_t>(handover_.journal_bytes, 1));
        agent_ = need(domain_.hypervisor->restrict_to(std::span(&peer_, 1)));
        start_worker(false);
    }
    void detach() override {
        end_worker();
        handover_ = {};
        agent_.reset();
        answer([this] { endpoint_->detached(); });
    }
    void update(std::vector<std::byte> message) override {
        if (worker_) (void)worker_->update(message);
    }
    void timer(std::optional<std::chrono::milliseconds> delay) override {
        due_ = delay ? std::optional(Loop::Clock::now() + *delay) : std::nullopt;
    }

    // What came since the last call.
    void step() {
        bool look = false;
        while (store_.take_event()) look = true;
        if (look) endpoint_->look();
        for (auto answers = std::exchange(answers_, {}); auto& one : answers) one();
        if (due_ && Loop::Clock::now() >= *due_) due_.reset(), endpoint_->expired();
    }

    Endpoint& endpoint() { return *endpoint_; }
    DeviceWorker* worker() { return worker_.get(); }  // null: none, or in a process of its own
    Store& store() { return store_; }
    Hypervisor& hypervisor() { return *domain_.hypervisor; }
    DeviceStats& stats() { return *reinterpret_cast<DeviceStats*>(stats_.bytes().data()); }
    std::span<std::byte> journal() { return journal_ ? journal_->bytes() : std::span<std::byte>{}; }
    std::optional<Error> complaint;  // why the worker did not start, or what broke its device

  protected:
    DeviceSide(LocalXen::Domain& domain, DeviceAddress address, std::unique_ptr<DeviceControl> control, ClassHalf half)
        : domain_(domain),
          half_(half),
          log_(address.name()),
          store_(need(Store::open(domain.xenstored))),
          peer_(address.peer()),
          endpoint_(std::make_unique<Endpoint>(address, std::move(control), *domain.hypervisor, store_, *this, log_,
                                               ConnectPace{.interval = {}})) {  // tests connect faster than a peer may
        need(store_.watch(peer_directory(address), "peer"));
        need(store_.watch(own_directory(address), "own"));
        new (stats_.bytes().data()) DeviceStats;
    }
    // A class's constructor ends with the first, its destructor with the second: the endpoint calls what is virtual.
    void open() { endpoint_->look(); }
    void close() {
        end_worker();
        endpoint_.reset();
    }

    virtual void start_worker(bool successor) = 0;  // says attached() or failed() in an answer, in the end
    virtual void end_worker() = 0;

    // In the process of a worker, its words cannot reach this object's controller: what a class makes of them.
    virtual void broken_elsewhere(const Error&) {}
    virtual void published_elsewhere(std::string_view) {}

    void answer(std::function<void()> later) { answers_.push_back(std::move(later)); }
    void failed(const Error& error) {
        complaint = error;
        answer([this, error] { endpoint_->failed(error); });
    }
    // Serves in this process: `elsewhere` when that is a worker's own. `group` is shared by devices of one worker.
    Status serve(Loop& loop, std::shared_ptr<void>& group, bool successor, bool elsewhere) {
        Fd agent = TRY(agent_.duplicate());
        hypervisor_ = TRY(local::open_restricted(std::move(agent)));
        HandoverReader reader = TRY(handover_.reader());
        worker_ = TRY(half_.serve(context(loop, group, successor, elsewhere), reader));
        return {};
    }
    void unserve() {
        worker_.reset();
        hypervisor_.reset();
    }

  private:
    WorkerContext context(Loop& loop, std::shared_ptr<void>& group, bool successor, bool elsewhere) {
        return {.loop = loop,
                .hypervisor = *hypervisor_,
                .address = endpoint_->address(),
                .journal = journal().first(handover_.journal_bytes),
                .successor = successor,
                .stats = stats(),
                .log = log_,
                .broken =
                    [this, elsewhere](const Error& error) {
                        log_.say("broken: " + error.message());
                        if (elsewhere) return broken_elsewhere(error);
                        answer([this, error] {
                            complaint = error;
                            endpoint_->broken(error);
                        });
                    },
                .publish =
                    [this, elsewhere](std::string_view key, std::string_view value) {
                        if (elsewhere) return published_elsewhere(value);
                        answer([this, key = std::string(key), value = std::string(value)] {
                            endpoint_->publish(key, value);
                        });
                    },
                .group = group};
    }

    LocalXen::Domain& domain_;
    ClassHalf half_;
    Log log_;
    Store store_;
    DomainId peer_;
    PrivateMemory stats_{sizeof(DeviceStats)};
    std::unique_ptr<PrivateMemory> journal_;
    Handover handover_;
    Fd agent_;
    std::unique_ptr<Hypervisor> hypervisor_;
    std::unique_ptr<DeviceWorker> worker_;
    std::vector<std::function<void()>> answers_;
    std::optional<Loop::Clock::time_point> due_;
    std::unique_ptr<Endpoint> endpoint_;
};

// Steps `world` until `done`; false after a minute: a hang is an error, whatever the machine's speed.
template <class World, class Done>
bool step_until(World& world, Done&& done) {
    const auto end = Loop::Clock::now() + std::chrono::seconds(60);
    while (!done()) {
        if (Loop::Clock::now() > end) return false;
        world.step();
    }
    return true;
}

// What is in use, for comparing before and after. Descriptors are this process's.
struct Usage {
    std::uint32_t grants, mappings, ports;
    std::size_t descriptors;
    bool operator==(const Usage&) const = default;
};
inline Usage usage_of(LocalXen& xen) {
    Usage all{};
    for (const local::DomainInfo& info : need(xen.control().list_domains()))
        all.grants += info.grants, all.mappings += info.mappings, all.ports += info.ports;
    DIR* directory = ::opendir("/proc/self/fd");
    while (::readdir(directory) != nullptr) ++all.descriptors;
    ::closedir(directory);
    return all;
}

}  // namespace caisson::test
