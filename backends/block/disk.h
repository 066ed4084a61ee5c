// What all queues of one disk share. Lives in its Worker, on the worker's thread.
#pragma once

#include "backends/block/host.h"
#include "backends/block/journal.h"
#include "backends/block/throttle.h"
#include "ring/device.h"

namespace caisson::block::backend {

struct Disk {
    Disk(WorkerContext&& c, const Config& settings, JournalHead& j)
        : context(std::move(c)), config(settings), journal(j), throttle(settings.rate) {
        limits = Limits::of(settings.geometry);
        limits.sectors_are_blocks = settings.sectors_are_blocks;
    }

    DomainId guest() const { return context.address.frontend; }
    // What a predecessor's failed flush, or ours, forbids.
    bool refuses(Operation operation) const { return journal.flush_failed != 0 && operation != Operation::read; }

    WorkerContext context;
    Config config;
    JournalHead& journal;
    Limits limits;
    Throttle throttle;
    std::unique_ptr<Host> host;
    bool in_place = false;  // every request is done in the turn in which it came, in pages reached without a map
    bool ready = false;     // the host takes requests: until then they wait
};

}  // namespace caisson::block::backend
