// Part 2 of 3: the driver domain's half.
#pragma once

#include "protocol.h"
#include "ring/device.h"
#include "ring/shared_ring.h"

namespace sensor {

class BackendControl final : public DeviceControl {
  public:
    static constexpr std::uint32_t channels = 4;

    Status offer(ControlContext& c) override { return write_keys(c.own, Offer{.channels = channels}); }
    Result<Handover> connect(ControlContext& c) override {
        const Line line = TRY(read_keys<Line>(c.peer));
        channel_ = TRY(c.hypervisor.bind_interdomain(c.address.peer(), line.port));
        Handover handover;
        handover.journal_bytes = sizeof(RingIndices);
        handover.put(line.ring);
        TRY(handover.put(channel_));
        return handover;
    }
    void disconnect(ControlContext& c) override {
        if (channel_) c.hypervisor.close(std::move(channel_));
    }

  private:
    EventChannel channel_;
};

class BackendWorker final : public DeviceWorker, Polled {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& in) {
        const GrantRef ref = TRY(in.value<GrantRef>());
        EventChannel channel = TRY(in.channel());
        MappedPages page = TRY(context.hypervisor.map(context.address.peer(), std::span(&ref, 1), Access::read_write));
        auto& indices = *reinterpret_cast<RingIndices*>(context.journal.data());
        auto ring = TRY(BackRing<Ring>::attach(page.memory(), indices));
        return std::unique_ptr<DeviceWorker>(
            new BackendWorker(std::move(context), std::move(channel), std::move(page), std::move(ring)));
    }

  private:
    BackendWorker(WorkerContext context, EventChannel channel, MappedPages page, BackRing<Ring> ring)
        : context_(std::move(context)), channel_(std::move(channel)), page_(std::move(page)), ring_(std::move(ring)) {
        serving_ = context_.loop.serve(*this, {&channel_});
        channel_.notify();  // in case a predecessor died just before it would have
    }

    bool poll() override {
        if (ring_.broken()) return false;
        const auto taken = ring_.drain(16, [&](Untrusted<Request>&& raw, std::uint32_t) {
            ring_.push(std::move(raw).check([](const Request& request) { return answer(request); }));
        });
        if (!taken) context_.broken(taken.error());
        if (ring_.publish()) channel_.notify();
        return taken.value_or(0) > 0;
    }
    bool arm() override { return ring_.arm().value_or(false); }

    static Response answer(const Request& request) {
        const auto sample = parse(request, BackendControl::channels);
        if (!sample) return {.id = request.id, .status = -sample.error().err, .value = 0};
        return {.id = sample->id, .status = 0, .value = 20 + sample->channel};  // this sensor measures steadily
    }

    WorkerContext context_;
    EventChannel channel_;
    MappedPages page_;
    BackRing<Ring> ring_;
    Loop::Handle serving_;
};

}  // namespace sensor
