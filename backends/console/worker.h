// The data path of a console's backend, in the sealed worker: ring to log and reader, reader to ring.
#pragma once

#include <optional>

#include "backends/console/host.h"
#include "backends/console/journal.h"
#include "backends/console/log.h"
#include "ring/byte_ring.h"
#include "ring/device.h"

namespace caisson::console {

// What the controller hands over, in this order: BackendPlan, the event channel, the host's descriptor unless its kind
// is none, the log's two descriptors if there is a log.
struct BackendPlan {
    GrantRef ring_ref{};
    HostKind host = HostKind::pty;
    bool log = false, log_timestamps = false;
    std::uint32_t limit = default_limit;
    std::uint32_t log_limit = default_log_limit, log_rate = default_log_rate;
    LogPosition log_begin;
};

class BackendWorker final : public DeviceWorker, Polled {
  public:
    static Result<std::unique_ptr<DeviceWorker>> serve(WorkerContext context, HandoverReader& handover);
    ~BackendWorker() override;

    bool poll() override;
    bool arm() override;

  private:
    struct Parts {
        MappedPages pages;
        EventChannel channel;
        HostPort host;
        LogWriter log;
        Journal journal;
    };
    BackendWorker(WorkerContext context, Parts parts);

    Result<bool> take_output();  // one piece of it: ring to log and queue
    bool show_output();          // queue to reader
    Result<bool> take_input();   // reader to ring
    void watch_host();           // for what can be used now
    void host_ready(short events);
    void tell_peer();
    void fail(const Error& error);

    WorkerContext context_;
    MappedPages pages_;
    EventChannel channel_;
    HostPort host_;
    LogWriter log_;
    Journal journal_;
    std::uint32_t consumed_;  // the ring's private index; journal_.progress().consumed once it is committed
    ByteConsumer out_;
    ByteProducer in_;
    std::uint64_t failures_seen_ = 0;
    std::size_t room_seen_ = 0;
    bool reader_full_ = false, broken_ = false;
    short watched_ = 0;
    Loop::Handle host_watch_, listener_watch_, served_;  // last: gone before what they call
};

}  // namespace caisson::console
