// The data path of one disk, in its worker: its queues and its host; and when to wake.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "backends/block/hosts.h"
#include "backends/block/queue.h"
#include "ring/device_fault.h"

namespace caisson::block::backend {

class Worker final : public DeviceWorker, Completions {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& handover) {
        return serve_with(std::move(context), handover, make_host);
    }
    // With another host than the handover names: for tests.
    using MakeHost =
        std::function<Result<std::unique_ptr<Host>>(WorkerContext&, const Config&, HandoverReader&, Completions&)>;
    static Result<std::unique_ptr<DeviceWorker>> serve_with(WorkerContext context, HandoverReader& handover,
                                                            const MakeHost& make);
    ~Worker() override;

    // Eight bytes: how many sectors the target has now. The worker knows first, then it publishes `sectors`: no request
    // of the frontend can come too early.
    Status update(std::span<const std::byte> message) override;

    // Of the persistent grants.
    std::uint32_t pages_mapped() const;

  private:
    // Each is polled for itself, so that a busy queue costs the others its budget and no more.
    struct Served final : Polled {
        Served(Worker& w, std::unique_ptr<Queue> q) : worker(w), queue(std::move(q)) {}
        bool poll() override {
            return worker.turn([this] { return queue->poll(); });
        }
        bool arm() override {
            return worker.turn([this] { return worker.arm(*queue); });
        }

        Worker& worker;
        std::unique_ptr<Queue> queue;
        Loop::Handle handle;
    };

    Worker(WorkerContext&& context, const Config& config, JournalHead& journal)
        : disk_(std::move(context), config, journal) {}
    Status take_over(HandoverReader& handover, bool successor, const MakeHost& make);
    void start();
    void wait_until_ready();
    void resize(std::uint64_t sectors);
    void done(Tag tag, int error) override { queues_[Queue::queue_of(tag)]->queue->done(Queue::own_part(tag), error); }

    template <class Work>
    bool turn(Work&& work) {
        return fault_.turn(disk_.context, std::forward<Work>(work), [this](const Error& error) { break_off(error); });
    }
    Result<bool> arm(Queue& queue);
    void break_off(const Error& error);

    Disk disk_;
    std::vector<std::unique_ptr<Served>> queues_;
    DeviceFault fault_;
    Loop::Handle rate_timer_, ready_timer_;
    Loop::Clock::duration ready_pause_ = std::chrono::microseconds(100);
};

}  // namespace caisson::block::backend
