#include "backends/net/worker.h"

#include "backends/net/host_null.h"
#include "backends/net/host_switch.h"
#include "backends/net/host_tap.h"
#include "backends/net/software_offload.h"

namespace caisson::net::backend {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {
constexpr unsigned packets_a_turn = 64;
constexpr std::size_t bytes_between_publishes = 128 << 10;  // a guest on another CPU can start on them
constexpr auto refill_interval = 30ms;  // for frontends without feature-rx-notify: netback's drain timeout

Journal* journal_in(const WorkerContext& context, unsigned queues) {
    if (context.journal.size() < journal_bytes(queues)) return nullptr;
    return reinterpret_cast<Journal*>(context.journal.data());
}
}  // namespace

// ---- Taking over
// -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<DeviceWorker>> Worker::serve(WorkerContext context, HandoverReader& handover) {
    const auto config = TRY(handover.value<Config>());
    Journal* journal = journal_in(context, config.queues);
    if (config.queues == 0 || config.queues > max_queues || journal == nullptr)
        return host_fault(EINVAL, "vif: handover and journal do not fit");
    const bool successor = context.successor && journal->magic == journal_magic;
    if (successor && !journal->hash.valid(config.queues)) journal->hash = {};
    std::unique_ptr<Worker> device(new Worker(std::move(context), config, *journal));
    TRY(device->take_over(handover, successor));
    journal->magic = journal_magic;
    device->start();
    return device;
}

Status Worker::take_over(HandoverReader& handover, bool successor) {
    Hypervisor& hypervisor = vif_.context.hypervisor;
    for (unsigned n = 0; n < vif_.config.queues; ++n) {
        auto queue = std::make_unique<Queue>(*this, n);
        const auto tx_ref = TRY(handover.value<GrantRef>()), rx_ref = TRY(handover.value<GrantRef>());
        queue->bell.channel = TRY(handover.channel());
        if (vif_.config.split_channels) queue->rx_bell.channel = TRY(handover.channel());
        queue->tx_page = TRY(hypervisor.map(vif_.guest(), std::span(&tx_ref, 1), Access::read_write));
        queue->rx_page = TRY(hypervisor.map(vif_.guest(), std::span(&rx_ref, 1), Access::read_write));
        queue->tx = TRY(Transmit::make(vif_, n, queue->tx_page.memory(), queue->bell, successor));
        Doorbell& rx_bell = vif_.config.split_channels ? queue->rx_bell : queue->bell;
        queue->rx = TRY(Receive::make(vif_, n, queue->rx_page.memory(), rx_bell, successor));
        queues_.push_back(std::move(queue));
    }
    if (vif_.config.control_ring) TRY(take_control(handover, successor));
    switch (vif_.config.host) {
        case HostKind::tap: vif_.host = TRY(TapHost::make(vif_.config.queues, handover)); break;
        case HostKind::network_switch:
            vif_.host = TRY(SwitchPort::make(vif_.context.group, vif_.context.loop, vif_.config, *this, handover));
            break;
        case HostKind::null: vif_.host = std::make_unique<NullHost>(); break;
    }
    return {};
}

Status Worker::take_control(HandoverReader& handover, bool successor) {
    control_ = std::make_unique<Control>(*this);
    const auto ref = TRY(handover.value<GrantRef>());
    control_->bell.channel = TRY(handover.channel());
    control_->page = TRY(vif_.context.hypervisor.map(vif_.guest(), std::span(&ref, 1), Access::read_write));
    control_->ring = TRY(HashControl::make(vif_, control_->page.memory(), control_->bell, successor));
    return {};
}

// Every bell rings once at first, in case a predecessor's notify was lost.
void Worker::start() {
    Loop& loop = vif_.context.loop;
    vif_.context.stats.queues = vif_.config.queues;
    for (auto& queue : queues_) {
        queue->bell.due = true;
        queue->rx_bell.due = vif_.config.split_channels;
        ring(*queue);
        queue->served = vif_.config.split_channels ? loop.serve(*queue, {&queue->bell.channel, &queue->rx_bell.channel})
                                                   : loop.serve(*queue, {&queue->bell.channel});
    }
    if (control_) {
        control_->bell.due = true;
        control_->bell.ring(vif_.context.stats.queue[0]);
        control_->served = loop.serve(*control_, {&control_->bell.channel});
    }
    const std::chrono::milliseconds limit(vif_.config.stall_milliseconds);
    if (vif_.config.rx_notify)
        stall_timer_ = loop.every(std::min<Loop::Clock::duration>(1s, limit / 4), [this] { look_for_stall(); });
}

Status Worker::update(std::span<const std::byte> message) {
    if (message.size() != 1) return host_fault(EINVAL, "vif: update");
    vif_.multicast.apply(message[0] != std::byte{0});
    return {};
}

// ---- Turns
// -------------------------------------------------------------------------------------------------------------

Result<bool> Worker::poll_queue(Queue& queue) {
    queue.rx->forget_views();
    const bool sent = TRY(queue.tx->poll());
    const bool posted = TRY(queue.rx->take_buffers());
    const bool received = TRY(read_host(queue));
    queue.rx->publish();
    ring(queue);
    return sent || posted || received;
}

Result<bool> Worker::poll_control(Control& control) {
    const bool progress = TRY(control.ring->poll());
    control.bell.ring(vif_.context.stats.queue[0]);
    return progress;
}

Result<bool> Worker::arm_queue(Queue& queue) {
    bool work = TRY(queue.tx->arm());
    if (queue.tx->waiting_for_rate() && !rate_timer_)
        rate_timer_ = vif_.context.loop.after(std::max(vif_.bucket.wait(), vif_.refusals.wait()),
                                              [this] { rate_timer_.reset(); });
    work |= TRY(queue.rx->arm());
    const int fd = vif_.host->readable_fd(queue.number);
    if (fd < 0) return work;
    // Even with few buffers: one packet more is read, and shows whether it has room.
    if (!queue.rx->waiting() && !queue.readable)
        queue.readable = vif_.context.loop.watch(fd, POLLIN, [&queue](short) { queue.readable.reset(); });
    if (queue.rx->waiting()) {
        queue.readable.reset();  // it would stay readable
        if (!vif_.config.rx_notify && !refill_timer_)
            refill_timer_ = vif_.context.loop.after(refill_interval, [this] { refill_timer_.reset(); });
    }
    return work;
}

void Worker::ring(Queue& queue) {
    QueueStats& stats = vif_.context.stats.queue[queue.number];
    queue.bell.ring(stats);
    if (vif_.config.split_channels) queue.rx_bell.ring(stats);
}

void Worker::break_off(const Error& error) {
    if (!fault_.note(vif_.context, error)) return;
    for (auto& queue : queues_) queue->readable.reset();
    stall_timer_.reset();
}

// ---- Host to guest
// -----------------------------------------------------------------------------------------------------

Result<bool> Worker::read_host(Queue& queue) {
    if (vif_.host->readable_fd(queue.number) < 0) return false;
    Receive& rx = *queue.rx;
    const bool in_place = vif_.direct && !vif_.hash().enabled();
    std::size_t unpublished = 0;
    bool any = false;
    QueueStats& stats = vif_.context.stats.queue[queue.number];
    const std::uint64_t before = stats.bytes_out.get();
    for (unsigned i = 0; i < packets_a_turn && !rx.waiting(); ++i) {
        const bool got = TRY(in_place && rx.room() ? rx.receive_in_place() : read_host_privately(queue));
        if (!got) break;
        any = true;
        if (stats.bytes_out.get() - before - unpublished >= bytes_between_publishes) {
            unpublished = stats.bytes_out.get() - before;
            rx.publish();
            ring(queue);
        }
    }
    return any;
}

Result<bool> Worker::read_host_privately(Queue& queue) {
    VirtioHeader virtio;
    std::span<std::byte> bytes = vif_.private_packet;
    const std::array room{iovec{&virtio, sizeof virtio}, iovec{bytes.data(), bytes.size()}};
    const std::size_t got = vif_.host->receive(queue.number, room);
    if (got == 0) return false;
    if (got < sizeof virtio + min_packet || got > sizeof virtio + max_packet) return queue.rx->drop(), true;
    const Bytes packet = Bytes(bytes).first(got - sizeof virtio);
    Frame frame{.virtio = virtio, .size = static_cast<std::uint32_t>(packet.size())};
    frame.head = packet.first(std::min(packet.size(), header_bytes));
    frame.tail = packet.subspan(frame.head.size());
    frame.headers = parse_headers(frame.head);
    TRY(put(queue.number, frame));
    return true;
}

// From a switch, perhaps while another device is polled: what is found broken is only noted.
bool Worker::deliver(const Frame& frame) {
    if (fault_) return false;
    const auto offload = from_virtio(frame.virtio);
    const Offloads& guest = vif_.config.offloads;
    const bool as_it_is = offload && guest.gso(offload->gso.type) && (!offload->csum_blank || guest.csum_ipv4);
    auto status = as_it_is ? put(0, frame) : offload ? deliver_completed(frame) : Status{};
    if (!status) return break_off(status.error()), false;
    return true;
}

// For a guest that takes no GSO, or no blank checksums.
Status Worker::deliver_completed(const Frame& frame) {
    const std::span packet = std::span(vif_.private_packet).first(frame.size);
    flatten(frame, packet);
    Status status;
    const auto put_complete = [&](Bytes whole) {
        Frame one{.headers = frame.headers, .size = static_cast<std::uint32_t>(whole.size())};
        one.head = whole.first(std::min(whole.size(), header_bytes));
        one.tail = whole.subspan(one.head.size());
        if (status) status = put(0, one);
    };
    const bool done = frame.virtio.gso_type == virtio::gso_none
                          ? complete_checksum(packet, frame.virtio) && (put_complete(packet), true)
                          : segment_tcp(packet, frame.virtio, put_complete);
    if (!done) queues_[0]->rx->drop();
    return status;
}

// `from`: the queue that takes packets without a hash.
Status Worker::put(unsigned from, const Frame& frame) {
    unsigned to = from;
    const auto hash = vif_.hash().of(frame.head, frame.headers);
    if (hash) to = vif_.hash().queue(hash->value, vif_.config.queues);
    Receive& rx = *queues_[to]->rx;
    if (!vif_.multicast.wants(frame.headers.destination)) return rx.drop(), Status{};
    return rx.put(frame, hash);
}

// XSA-392. The guest does not take its packets: what waits is thrown away, and said in `carrier`, until it does.
void Worker::look_for_stall() {
    if (fault_) return;
    bool stalled = false;
    const std::chrono::milliseconds limit(vif_.config.stall_milliseconds);
    for (auto& queue : queues_) {
        if (!queue->rx->waiting() || Clock::now() - queue->rx->waiting_since() < limit) continue;
        stalled = true;
        if (carrier_) queue->rx->purge();
    }
    const bool room = std::ranges::all_of(queues_, [](const auto& queue) { return queue->rx->room(); });
    if (carrier_ && stalled) {
        carrier_ = false;
        vif_.context.publish(key::carrier, "0");
    } else if (!carrier_ && room) {
        carrier_ = true;
        vif_.context.publish(key::carrier, "1");
    }
}

}  // namespace caisson::net::backend
