#include "backends/block/worker.h"

namespace caisson::block::backend {

using namespace std::chrono_literals;

namespace {

bool sane(const Config& config) {
    return config.queues >= 1 && config.queues <= max_queues && config.ring_pages >= 1 &&
           config.ring_pages <= 1u << max_ring_order;
}

}  // namespace

// ---- Taking over ---------------------------------------------------------------------------------------------------

Result<std::unique_ptr<DeviceWorker>> Worker::serve_with(WorkerContext context, HandoverReader& handover,
                                                         const MakeHost& make) {
    const auto config = TRY(handover.value<Config>());
    if (!sane(config) || context.journal.size() < journal_bytes(config))
        return host_fault(EINVAL, "vbd: handover and journal do not fit");
    auto& journal = *reinterpret_cast<JournalHead*>(context.journal.data());
    const bool successor = context.successor && journal.magic == journal_magic;
    if (!successor) journal = {};
    std::unique_ptr<Worker> device(new Worker(std::move(context), config, journal));
    TRY(device->take_over(handover, successor, make));
    journal.magic = journal_magic;
    device->start();
    return device;
}

Status Worker::take_over(HandoverReader& handover, bool successor, const MakeHost& make) {
    for (unsigned n = 0; n < disk_.config.queues; ++n)
        queues_.push_back(std::make_unique<Served>(*this, TRY(Queue::make(disk_, n, handover, successor))));
    disk_.host = TRY(make(disk_.context, disk_.config, handover, *this));
    disk_.in_place = disk_.host->immediate() && disk_.context.hypervisor.capabilities().direct_view;
    if (disk_.journal.sectors != 0) resize(disk_.journal.sectors);
    return {};
}

void Worker::start() {
    disk_.context.stats.queues = disk_.config.queues;
    wait_until_ready();
    for (auto& one : queues_) one->handle = disk_.context.loop.serve(*one, {&one->queue->channel()});
}

void Worker::wait_until_ready() {
    disk_.ready = disk_.host->ready();
    if (disk_.ready) return;
    // Mostly a predecessor's last requests, which take microseconds.
    ready_timer_ = disk_.context.loop.after(ready_pause_, [this] { wait_until_ready(); });
    ready_pause_ = std::min<Loop::Clock::duration>(ready_pause_ * 2, 8ms);
}

// First nobody polls, then nobody reads or writes, then the pages go.
Worker::~Worker() {
    for (auto& one : queues_) one->handle.reset();
    ready_timer_.reset();
    rate_timer_.reset();
    disk_.host.reset();
}

// ---- Resizing ------------------------------------------------------------------------------------------------------

Status Worker::update(std::span<const std::byte> message) {
    std::uint64_t sectors = 0;
    if (message.size() != sizeof sectors) return host_fault(EINVAL, "vbd: update");
    std::memcpy(&sectors, message.data(), sizeof sectors);
    disk_.journal.sectors = sectors;  // for a successor, whose handover is older
    resize(sectors);
    disk_.context.publish(key::sectors, std::to_string(disk_.config.announced(disk_.limits.sectors)));
    return {};
}

void Worker::resize(std::uint64_t sectors) {
    disk_.host->resized(sectors);
    disk_.limits.sectors = disk_.host->geometry().sectors;
}

// ---- Turns ---------------------------------------------------------------------------------------------------------

Result<bool> Worker::arm(Queue& queue) {
    const bool work = TRY(queue.arm());
    if (queue.throttled() && !rate_timer_)
        rate_timer_ = disk_.context.loop.after(disk_.throttle.wait(), [this] { rate_timer_.reset(); });
    return work;
}

void Worker::break_off(const Error& error) {
    if (!fault_.note(disk_.context, error)) return;
    for (auto& one : queues_) one->queue->give_up();
}

std::uint32_t Worker::pages_mapped() const {
    std::uint32_t pages = 0;
    for (const auto& one : queues_) pages += one->queue->pages_mapped();
    return pages;
}

}  // namespace caisson::block::backend
