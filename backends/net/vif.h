// What all parts of one vif's data path share. Lives in its Worker, on the worker's thread.
#pragma once

#include "backends/net/config.h"
#include "backends/net/filter.h"
#include "backends/net/host.h"
#include "ring/device.h"
#include "ring/token_bucket.h"

namespace caisson::net::backend {

// An event channel and whether it has to be rung: a queue's two rings may share one, and are answered together.
struct Doorbell {
    EventChannel channel;
    bool due = false;
    void ring(QueueStats& stats) {
        if (!std::exchange(due, false)) return;
        channel.notify();
        stats.notifies_sent.add(1);
    }
};

// A guest whose packets are refused one after the other (another's address, malformed), or are none (a word about
// multicast), is read no faster than this: they take the time of all whom this backend serves.
inline constexpr unsigned refusals_per_second = 10'000, refusals_at_once = 1000;

// A full packet must always fit: netback's max_burst.
inline constexpr std::uint64_t least_burst_bytes = 131072;

inline TokenBucket bucket_of(const Rate& rate) {
    if (rate.bytes == 0 || rate.microseconds == 0) return {};
    return {static_cast<double>(rate.bytes) * 1e6 / static_cast<double>(rate.microseconds),
            static_cast<double>(std::max(rate.bytes, least_burst_bytes))};
}

struct Vif {
    Vif(WorkerContext&& c, const Config& settings, Journal& j)
        : context(std::move(c)),
          config(settings),
          journal(j),
          source(settings),
          multicast(j, settings.multicast_control),
          bucket(bucket_of(settings.rate)),
          refusals(refusals_per_second, refusals_at_once),
          direct(context.hypervisor.capabilities().direct_view),
          private_packet(header_bytes + max_packet + 1) {}

    const ReceiveHash& hash() const { return journal.hash; }
    DomainId guest() const { return context.address.frontend; }

    WorkerContext context;
    Config config;
    Journal& journal;
    SourceFilter source;
    MulticastFilter multicast;
    TokenBucket bucket, refusals;
    bool direct;  // grants can be reached in place
    std::unique_ptr<Host> host;
    std::vector<std::byte> private_packet;  // for packets that cannot be moved in place; one call's use
};

}  // namespace caisson::net::backend
