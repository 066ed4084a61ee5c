#include <deque>

#include "frontends/net/hash_client.h"
#include "frontends/net/link.h"
#include "frontends/net/net.h"
#include "frontends/net/receiver.h"
#include "frontends/net/transmitter.h"

namespace caisson::net {

namespace frontend {
namespace {

constexpr unsigned frames_a_turn = 64;      // from the attachment, a queue
constexpr unsigned responses_a_turn = 128;  // from the backend, a queue

class FrontendWorker;

// One queue: two rings, one or two channels, one descriptor of the attachment.
class Queue final : public Polled {
  public:
    struct Parts {
        FramePort port;
        SharedPages tx_pages, rx_pages;
        EventChannel tx_channel, rx_channel;  // rx_channel empty: tx_channel serves both
    };
    Queue(FrontendWorker& worker, QueueStats& stats, Parts parts, Transmitter tx, Receiver rx)
        : worker_(worker), stats_(stats), parts_(std::move(parts)), tx_(std::move(tx)), rx_(std::move(rx)) {}

    void start(Loop& loop);
    bool poll() override;
    bool arm() override;
    Transmitter& transmitter() { return tx_; }
    void notify_tx() { notify(parts_.tx_channel); }

  private:
    void notify(const EventChannel& channel);
    const EventChannel& rx_channel() const { return parts_.rx_channel ? parts_.rx_channel : parts_.tx_channel; }
    bool receive();
    bool transmit();
    void listen_to_attachment();

    FrontendWorker& worker_;
    QueueStats& stats_;
    Parts parts_;
    Transmitter tx_;
    Receiver rx_;
    Loop* loop_ = nullptr;
    Loop::Handle served_, attachment_;
    bool no_room_ = false;  // frames wait in the attachment until the backend answers
    bool gone_ = false;     // the attachment went away
};

class ControlQueue final : public Polled {
  public:
    ControlQueue(FrontendWorker& worker, SharedPages pages, EventChannel channel, HashClient client)
        : worker_(worker), pages_(std::move(pages)), channel_(std::move(channel)), client_(std::move(client)) {}
    void start(Loop& loop) {
        served_ = loop.serve(*this, {&channel_});
        (void)channel_.notify();
    }
    bool poll() override;
    bool arm() override;

  private:
    FrontendWorker& worker_;
    SharedPages pages_;
    EventChannel channel_;
    HashClient client_;
    Loop::Handle served_;
};

class FrontendWorker final : public DeviceWorker {
  public:
    FrontendWorker(WorkerContext context, const Link& link) : context_(std::move(context)), link_(link) {}

    Status open(HandoverReader& handover);
    void start();
    Status update(std::span<const std::byte> message) override;

    bool dead() const { return dead_; }
    void fail(const Error& error) {
        if (std::exchange(dead_, true)) return;
        context_.broken(error);
    }
    // Joins and leaves that found no room; the first queue's.
    bool send_multicast();

  private:
    Result<std::unique_ptr<Queue>> open_queue(HandoverReader& handover, unsigned number);
    Journal& journal() { return *reinterpret_cast<Journal*>(context_.journal.data()); }

    WorkerContext context_;
    Link link_;
    bool dead_ = false;
    std::vector<std::unique_ptr<Queue>> queues_;
    std::unique_ptr<ControlQueue> control_;
    std::deque<MulticastUpdate> multicast_;  // at most max_multicast
};

// ---- Queue ----

void Queue::start(Loop& loop) {
    loop_ = &loop;
    if (parts_.rx_channel)
        served_ = loop.serve(*this, {&parts_.tx_channel, &parts_.rx_channel});
    else
        served_ = loop.serve(*this, {&parts_.tx_channel});
    listen_to_attachment();
    notify(parts_.tx_channel);  // buffers were posted; and a predecessor may have died before it said so
    if (parts_.rx_channel) notify(parts_.rx_channel);
}

void Queue::listen_to_attachment() {
    if (gone_ || attachment_) return;
    attachment_ = loop_->watch(parts_.port.wait_fd(), POLLIN, [this](short) { (void)transmit(); });
}

void Queue::notify(const EventChannel& channel) {
    stats_.notifies_sent.add(1);
    (void)channel.notify();  // false: the backend is gone, which the controller learns from xenstore
}

bool Queue::poll() {
    if (worker_.dead()) return false;
    const bool received = receive();
    const Result<unsigned> answered = worker_.dead() ? Result<unsigned>(0u) : tx_.reap();
    if (!answered) return worker_.fail(answered.error()), false;
    const bool sent = no_room_ && !worker_.dead() && tx_.room() && transmit();
    return received || *answered > 0 || sent || worker_.send_multicast();
}

bool Queue::receive() {
    const auto done = rx_.receive(parts_.port, responses_a_turn);
    if (!done) return worker_.fail(done.error()), false;
    if (done->notify) notify(rx_channel());
    return done->responses > 0;
}

// Attachment to ring, until one of them has no more.
bool Queue::transmit() {
    if (worker_.dead()) return attachment_.reset(), false;
    if (!tx_.room()) {
        const auto answered = tx_.reap();
        if (!answered) return worker_.fail(answered.error()), attachment_.reset(), false;
    }
    const Transmitter::Taken taken = tx_.take(parts_.port, frames_a_turn);
    if (taken.notify) notify(parts_.tx_channel);
    gone_ |= taken.gone;
    no_room_ = !gone_ && !tx_.room();
    if (no_room_ || gone_)
        attachment_.reset();  // what comes now stays in its queue, which drops at the tail
    else
        listen_to_attachment();
    return taken.frames > 0;
}

bool Queue::arm() {
    if (worker_.dead()) return false;
    Result<bool> work = rx_.arm();
    // Answers are only worth a wake-up while a frame waits for room, or a predecessor's pages for their end.
    if (work && (no_room_ || tx_.old_arenas() > 0)) {
        const Result<bool> answers = tx_.arm();
        work = answers ? Result<bool>(*work || *answers) : answers;
    }
    if (!work) return worker_.fail(work.error()), false;
    if (!*work) stats_.sleeps.add(1);
    return *work;
}

// ---- Control ring ----

bool ControlQueue::poll() {
    if (worker_.dead()) return false;
    bool notify = false;
    const Result<bool> progress = client_.poll(notify);
    if (!progress) return worker_.fail(progress.error()), false;
    if (notify) (void)channel_.notify();
    return *progress;
}

bool ControlQueue::arm() {
    if (worker_.dead()) return false;
    const Result<bool> work = client_.arm();
    if (!work) return worker_.fail(work.error()), false;
    return *work;
}

// ---- FrontendWorker ----

Status FrontendWorker::open(HandoverReader& handover) {
    if (context_.journal.size() < sizeof(Journal)) return host_fault(EBADMSG, "journal too small");
    end_forgotten(context_.hypervisor, journal());
    for (unsigned i = 0; i < link_.queues; ++i) queues_.push_back(TRY(open_queue(handover, i)));
    context_.stats.queues = link_.queues;
    if (!link_.receive_hash) return {};
    SharedPages pages = TRY(handover.pages(context_.hypervisor));
    EventChannel channel = TRY(handover.channel());
    HashClient client = TRY(HashClient::make({.hypervisor = context_.hypervisor,
                                              .peer = context_.address.peer(),
                                              .ring = pages.memory(),
                                              .journal = journal().control,
                                              .queues = link_.queues}));
    control_ = std::make_unique<ControlQueue>(*this, std::move(pages), std::move(channel), std::move(client));
    return {};
}

Result<std::unique_ptr<Queue>> FrontendWorker::open_queue(HandoverReader& handover, unsigned number) {
    Queue::Parts parts{.port = FramePort(TRY(handover.fd())),
                       .tx_pages = TRY(handover.pages(context_.hypervisor)),
                       .rx_pages = TRY(handover.pages(context_.hypervisor)),
                       .tx_channel = TRY(handover.channel()),
                       .rx_channel = {}};
    if (link_.split_channels) parts.rx_channel = TRY(handover.channel());
    QueueJournal& kept = journal().queue[number];
    QueueStats& stats = context_.stats.queue[number];
    const DomainId peer = context_.address.peer();
    Transmitter tx = TRY(Transmitter::make({.hypervisor = context_.hypervisor,
                                            .peer = peer,
                                            .ring = parts.tx_pages.memory(),
                                            .journal = kept.tx,
                                            .stats = stats,
                                            .largest = link_.largest,
                                            .offloads = link_.peer}));
    Receiver rx = TRY(Receiver::make({.hypervisor = context_.hypervisor,
                                      .peer = peer,
                                      .ring = parts.rx_pages.memory(),
                                      .journal = kept.rx,
                                      .stats = stats}));
    return std::make_unique<Queue>(*this, stats, std::move(parts), std::move(tx), std::move(rx));
}

void FrontendWorker::start() {
    for (auto& queue : queues_) queue->start(context_.loop);
    if (control_) control_->start(context_.loop);
}

Status FrontendWorker::update(std::span<const std::byte> message) {
    const auto update = TRY(MulticastUpdate::decode(message));
    using What = MulticastUpdate::What;
    if (update.what == What::filter || update.what == What::pass_all) {
        if (!link_.dynamic_multicast) return unsupported("a multicast filter while connected");
        context_.publish(key::request_multicast_control, update.what == What::filter ? "1" : "0");
        return {};
    }
    if (multicast_.size() == max_multicast) return host_fault(ENOBUFS, "multicast groups");
    multicast_.push_back(update);
    (void)send_multicast();
    return {};
}

bool FrontendWorker::send_multicast() {
    bool any = false, notify = false;
    while (!dead_ && !multicast_.empty()) {
        const MulticastUpdate& next = multicast_.front();
        if (!queues_[0]->transmitter().multicast(next.what == MulticastUpdate::What::join, next.group, notify)) break;
        multicast_.pop_front();
        any = true;
    }
    if (notify) queues_[0]->notify_tx();
    return any;
}

Result<std::unique_ptr<DeviceWorker>> serve_frontend(WorkerContext context, HandoverReader& handover) {
    const Link link = TRY(handover.value<Link>());
    if (link.queues < 1 || link.queues > max_queues) return host_fault(EBADMSG, "handover: queues");
    auto worker = std::make_unique<FrontendWorker>(std::move(context), link);
    TRY(worker->open(handover));
    worker->start();
    return worker;
}

}  // namespace
}  // namespace frontend

std::vector<std::byte> MulticastUpdate::encode() const {
    std::vector<std::byte> bytes{static_cast<std::byte>(what)};
    for (const std::uint8_t byte : group.bytes) bytes.push_back(static_cast<std::byte>(byte));
    return bytes;
}

Result<MulticastUpdate> MulticastUpdate::decode(std::span<const std::byte> bytes) {
    MulticastUpdate update;
    if (bytes.size() != 1 + update.group.bytes.size() || std::to_integer<unsigned>(bytes[0]) > 3)
        return host_fault(EBADMSG, "multicast update");
    update.what = static_cast<What>(bytes[0]);
    for (std::size_t i = 0; i < update.group.bytes.size(); ++i)
        update.group.bytes[i] = std::to_integer<std::uint8_t>(bytes[1 + i]);
    return update;
}

ClassHalf frontend_half() {
    return {.control = [] { return make_frontend_control({}); }, .serve = frontend::serve_frontend, .policy = nullptr};
}

}  // namespace caisson::net
