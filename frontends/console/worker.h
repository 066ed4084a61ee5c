// The data path of a console's frontend, in the sealed worker: pty to ring, ring to pty.
#pragma once

#include <array>

#include "frontends/console/port.h"
#include "ring/device.h"

namespace caisson::console {

// In this domain's private memory, kept over a worker's death.
struct FrontJournal {
    static constexpr std::uint32_t version = 0x434F4E46;  // "CONF"
    std::uint32_t magic = 0;
    FrontIndices indices;
};

// The controller hands over, in this order: the page, the event channel, the pty's master.
class FrontendWorker final : public DeviceWorker, Polled {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& handover);
    ~FrontendWorker() override;

    bool poll() override;
    bool arm() override;

  private:
    FrontendWorker(WorkerContext context, SharedPages pages, EventChannel channel, Fd pty);

    Result<std::size_t> print();  // what the programs wrote: pty to ring
    Result<std::size_t> type();   // what a person typed: ring to pty
    void last_words();
    void watch_pty();
    void pty_ready(short events);
    void fail(const Error& error);

    WorkerContext context_;
    SharedPages pages_;
    EventChannel channel_;
    Fd pty_;
    FrontPort port_;
    std::size_t room_seen_ = 0;
    bool pty_full_ = false, broken_ = false;
    short watched_ = 0;
    Loop::Handle pty_watch_, served_;  // last: gone before what they call
};

}  // namespace caisson::console
