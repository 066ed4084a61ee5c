// The data path of one vif, in its worker: queues, control ring, host; and when to wake.
#pragma once

#include "backends/net/control_ring.h"
#include "backends/net/receive.h"
#include "backends/net/transmit.h"
#include "ring/device_fault.h"

namespace caisson::net::backend {

class Worker final : public DeviceWorker, PacketSink {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& handover);

    // One byte: whether the frontend wants its multicast list applied.
    Status update(std::span<const std::byte> message) override;

  private:
    // Each is polled for itself, so that a busy queue costs the others its budget and no more.
    struct Queue final : Polled {
        Queue(Worker& d, unsigned n) : worker(d), number(n) {}
        bool poll() override {
            return worker.turn([this] { return worker.poll_queue(*this); });
        }
        bool arm() override {
            return worker.turn([this] { return worker.arm_queue(*this); });
        }

        Worker& worker;
        unsigned number;
        MappedPages tx_page, rx_page;
        Doorbell bell, rx_bell;  // rx_bell only with split event channels
        std::optional<Transmit> tx;
        std::optional<Receive> rx;
        Loop::Handle readable;  // while asleep: wakes when the host has something
        Loop::Handle served;
    };
    struct Control final : Polled {
        explicit Control(Worker& d) : worker(d) {}
        bool poll() override {
            return worker.turn([this] { return worker.poll_control(*this); });
        }
        bool arm() override {
            return worker.turn([this] { return ring->arm(); });
        }

        Worker& worker;
        MappedPages page;
        Doorbell bell;
        std::optional<HashControl> ring;
        Loop::Handle served;
    };

    Worker(WorkerContext&& context, const Config& config, Journal& journal)
        : vif_(std::move(context), config, journal) {}
    Status take_over(HandoverReader& handover, bool successor);
    Status take_control(HandoverReader& handover, bool successor);
    void start();

    bool deliver(const Frame& frame) override;

    template <class Work>
    bool turn(Work&& work) {
        return fault_.turn(vif_.context, std::forward<Work>(work), [this](const Error& error) { break_off(error); });
    }
    Result<bool> poll_queue(Queue& queue);
    Result<bool> poll_control(Control& control);
    Result<bool> arm_queue(Queue& queue);
    Result<bool> read_host(Queue& queue);
    Result<bool> read_host_privately(Queue& queue);
    Status deliver_completed(const Frame& frame);
    Status put(unsigned from, const Frame& frame);
    void ring(Queue& queue);
    void look_for_stall();
    void break_off(const Error& error);

    Vif vif_;
    std::vector<std::unique_ptr<Queue>> queues_;
    std::unique_ptr<Control> control_;
    DeviceFault fault_;
    bool carrier_ = true;
    Loop::Handle rate_timer_, refill_timer_, stall_timer_;
};

}  // namespace caisson::net::backend
