// Part 3 of 3: the guest's half. It reads every channel once and shows each reading in the guest's own xenstore
// directory, where any program of the guest can see it: that is its attachment.
#pragma once

#include "protocol.h"
#include "ring/device.h"
#include "ring/shared_ring.h"

namespace sensor {

class FrontendControl final : public DeviceControl {
  public:
    Status offer(ControlContext&) override { return {}; }
    Result<Handover> connect(ControlContext& c) override {
        const Offer offer = TRY(read_keys<Offer>(c.peer));
        page_ = TRY(c.hypervisor.share(c.address.peer(), 1, Access::read_write));
        channel_ = TRY(c.hypervisor.allocate_unbound(c.address.peer()));
        RingIndices fresh;
        FrontRing<Ring>::initialise(page_.memory(), fresh);
        Handover handover;
        handover.journal_bytes = sizeof(RingIndices);
        handover.put(offer.channels);
        TRY(handover.put(page_));
        TRY(handover.put(channel_));
        TRY(write_keys(c.own, Line{.ring = page_.refs()[0], .port = channel_.port()}));
        return handover;
    }
    void disconnect(ControlContext& c) override {
        if (channel_) c.hypervisor.close(std::move(channel_));
        page_ = {};
    }
    bool worker_may_publish(std::string_view key) const override { return key.starts_with("reading-"); }

  private:
    SharedPages page_;
    EventChannel channel_;
};

class FrontendWorker final : public DeviceWorker, Polled {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& in) {
        const auto channels = TRY(in.value<std::uint32_t>());
        SharedPages page = TRY(in.pages(context.hypervisor));
        EventChannel channel = TRY(in.channel());
        auto& indices = *reinterpret_cast<RingIndices*>(context.journal.data());
        auto ring = TRY(FrontRing<Ring>::attach(page.memory(), indices));
        return std::unique_ptr<DeviceWorker>(
            new FrontendWorker(std::move(context), channels, std::move(page), std::move(channel), std::move(ring)));
    }

  private:
    FrontendWorker(WorkerContext context, std::uint32_t channels, SharedPages page, EventChannel channel,
                   FrontRing<Ring> ring)
        : context_(std::move(context)), page_(std::move(page)), channel_(std::move(channel)), ring_(std::move(ring)) {
        serving_ = context_.loop.serve(*this, {&channel_});
        if (!context_.successor)  // a successor finds the requests in the ring
            for (std::uint32_t c = 0; c < std::min(channels, ring_.free()); ++c) ring_.push({.id = c, .channel = c});
        (void)ring_.publish();
        channel_.notify();
    }

    bool poll() override {
        if (ring_.broken()) return false;
        const auto taken = ring_.drain(16, [&](Untrusted<Response>&& raw, std::uint32_t index) {
            const auto reading = std::move(raw).check([&](const Response& r) { return parse(r, index); });
            if (reading)
                context_.publish("reading-" + std::to_string(reading->channel), std::to_string(reading->value));
            else if (reading.error().fault == Fault::peer)
                ring_.mark_broken(reading.error());
        });
        if (ring_.broken()) context_.broken(ring_.fault());
        return taken.value_or(0) > 0;
    }
    bool arm() override { return ring_.arm().value_or(false); }

    WorkerContext context_;
    SharedPages page_;
    EventChannel channel_;
    FrontRing<Ring> ring_;
    Loop::Handle serving_;
};

}  // namespace sensor
