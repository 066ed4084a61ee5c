#include "frontends/net/journal.h"

#include <algorithm>
#include <vector>

namespace caisson::net::frontend {

namespace {

constexpr std::uint32_t references_tried = 8192;  // hypervisors give out the lowest free ones

std::vector<ArenaRecord*> records(Journal& journal) {
    std::vector<ArenaRecord*> all{&journal.control.pages};
    for (QueueJournal& queue : journal.queue) {
        all.push_back(&queue.rx.arena);
        for (ArenaRecord& arena : queue.tx.arenas) all.push_back(&arena);
    }
    return all;
}

}  // namespace

Result<SharedPages> share_noted(Hypervisor& hypervisor, DomainId peer, std::uint32_t pages, Access access,
                                ArenaRecord& record) {
    record = {.state = ArenaRecord::sharing};
    std::atomic_signal_fence(std::memory_order_seq_cst);
    auto shared = hypervisor.share(peer, pages, access);
    if (shared) record.first = shared->refs()[0].raw;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    record.state = shared ? ArenaRecord::shared : ArenaRecord::none;
    return shared;
}

void end_noted(SharedPages& pages, ArenaRecord& record) {
    record.state = ArenaRecord::ending;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    pages = {};
    std::atomic_signal_fence(std::memory_order_seq_cst);
    record = {};
}

void end_forgotten(Hypervisor& hypervisor, Journal& journal) {
    std::vector<std::uint32_t> noted;
    bool forgotten = false;
    for (ArenaRecord* record : records(journal)) {
        if (record->state == ArenaRecord::ending) {
            (void)hypervisor.reclaim(GrantRef(record->first));  // what comes back is ended at once
            *record = {};
        }
        if (record->state == ArenaRecord::shared) noted.push_back(record->first);
        forgotten |= record->state > ArenaRecord::shared;
    }
    if (!forgotten) return;
    for (std::uint32_t ref = 0; ref < references_tried; ++ref)
        if (std::find(noted.begin(), noted.end(), ref) == noted.end()) (void)hypervisor.reclaim(GrantRef(ref));
    for (ArenaRecord* record : records(journal))
        if (record->state > ArenaRecord::shared) *record = {};
}

}  // namespace caisson::net::frontend
