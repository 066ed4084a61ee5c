#include <algorithm>

#include "frontends/net/attachment_tap.h"
#include "frontends/net/journal.h"
#include "frontends/net/link.h"
#include "frontends/net/net.h"

namespace caisson::net {

namespace frontend {
namespace {

// What a backend publishes, read once a connection; strict, and clamped to what we can do.
struct Offer {
    Offloads offloads;
    std::uint32_t max_queues = 1;
    bool split_channels = false, control_ring = false, multicast = false, dynamic_multicast = false;
};

Result<Offer> read_offer(const Directory& backend) {
    if (!TRY(backend.flag(key::rx_copy))) return unsupported("a backend without feature-rx-copy");
    Offer offer;
    for (const OffloadKey& row : offload_keys)
        offer.offloads.*row.member = TRY(backend.flag(row.name, row.absent != row.inverted)) != row.inverted;
    offer.offloads = consistent(offer.offloads);
    offer.max_queues = TRY(backend.number(key::max_queues, 1));
    if (offer.max_queues < 1) return peer_fault("multi-queue-max-queues", 0, Wanted::at_least, 1);
    offer.split_channels = TRY(backend.flag(key::split_channels));
    offer.control_ring = TRY(backend.flag(key::control_ring));
    offer.multicast = TRY(backend.flag(key::multicast_control));
    offer.dynamic_multicast = TRY(backend.flag(key::dynamic_multicast_control));
    return offer;
}

// One page as a ring, set up before the backend can learn of it.
template <RingProtocol P>
Result<SharedPages> share_ring(ControlContext& context) {
    SharedPages page = TRY(context.hypervisor.share(context.address.peer(), 1, Access::read_write));
    RingIndices unused;
    (void)FrontRing<P>::initialise(page.memory(), unused);
    return page;
}

struct QueueShare {
    SharedPages tx, rx;
    EventChannel tx_channel, rx_channel;
};

struct ControlShare {
    SharedPages ring;
    EventChannel channel;
};

class FrontendControl final : public DeviceControl {
  public:
    explicit FrontendControl(FrontendOptions options) : options_(std::move(options)) {}

    Status offer(ControlContext& context) override;
    Result<Handover> connect(ControlContext& context) override;
    void connected(ControlContext& context) override;
    void disconnect(ControlContext& context) override;
    std::vector<std::string> watched_own() const override { return {std::string(key::mtu)}; }
    std::vector<std::string> watched_peer() const override { return {std::string(key::carrier)}; }
    bool worker_may_publish(std::string_view name) const override { return name == key::request_multicast_control; }
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override;

  private:
    Status negotiate(ControlContext& context);
    Status share(ControlContext& context);
    Status write_keys(ControlContext& context) const;
    Status write_queue(const Directory& directory, const QueueShare& queue) const;
    void remove_keys(ControlContext& context) const;
    Result<Handover> hand_over() const;
    Result<std::uint32_t> mtu(ControlContext& context) const;
    Status follow_carrier(ControlContext& context);

    FrontendOptions options_;
    std::unique_ptr<Attachment> attachment_;
    std::vector<const Fd*> ports_;
    Offer offer_;
    Link link_;
    std::vector<QueueShare> queues_;  // not empty: connected
    std::optional<ControlShare> control_;
};

Status FrontendControl::offer(ControlContext& context) {
    if (attachment_) return {};
    std::optional<Mac> mac;
    if (const auto text = TRY(context.own.text(key::mac))) {
        mac = parse_mac(*text);
        if (!mac) return host_fault(EINVAL, "mac", *text);
    }
    attachment_ = options_.attachment
                      ? TRY(options_.attachment(context.address, mac))
                      : TRY(open_tap({.name = "eth" + std::to_string(context.address.id.raw), .mac = mac}));
    return {};
}

Result<Handover> FrontendControl::connect(ControlContext& context) {
    if (!queues_.empty()) disconnect(context);
    TRY(offer(context));  // a backend may be waiting before we ever looked
    TRY(negotiate(context));
    TRY(share(context));
    TRY(context.own.store().transaction([&] { return write_keys(context); }));
    return hand_over();
}

Status FrontendControl::negotiate(ControlContext& context) {
    offer_ = TRY(read_offer(context.peer));
    const std::uint32_t wanted_mtu = TRY(mtu(context));
    link_ = {};
    link_.queues = std::clamp(std::min(options_.queues, offer_.max_queues), 1u, max_queues);
    link_.largest = offer_.offloads.largest(wanted_mtu);
    link_.peer = offer_.offloads;
    link_.split_channels = options_.split_channels && offer_.split_channels;
    link_.receive_hash = options_.receive_hash && offer_.control_ring && link_.queues > 1;
    link_.dynamic_multicast = options_.multicast_control && offer_.dynamic_multicast;
    TRY(attachment_->configure(link_.peer, std::min(wanted_mtu, link_.largest - 18)));
    ports_ = TRY(attachment_->queues(link_.queues));
    return {};
}

// Absent: 1500 (netif.h). Ours to read, but a guest may write there, too.
Result<std::uint32_t> FrontendControl::mtu(ControlContext& context) const {
    return std::clamp(TRY(context.own.number(key::mtu, default_mtu)), min_mtu, max_mtu);
}

Status FrontendControl::share(ControlContext& context) {
    const DomainId peer = context.address.peer();
    for (unsigned i = 0; i < link_.queues; ++i) {
        QueueShare& queue = queues_.emplace_back();
        queue.tx = TRY(share_ring<TxRing>(context));
        queue.rx = TRY(share_ring<RxRing>(context));
        queue.tx_channel = TRY(context.hypervisor.allocate_unbound(peer));
        if (link_.split_channels) queue.rx_channel = TRY(context.hypervisor.allocate_unbound(peer));
    }
    if (!link_.receive_hash) return {};
    control_.emplace();
    control_->ring = TRY(share_ring<ControlRing>(context));
    control_->channel = TRY(context.hypervisor.allocate_unbound(peer));
    return {};
}

Status FrontendControl::write_queue(const Directory& directory, const QueueShare& queue) const {
    TRY(directory.write(key::tx_ring_ref, queue.tx.refs()[0].raw));
    TRY(directory.write(key::rx_ring_ref, queue.rx.refs()[0].raw));
    if (!queue.rx_channel) return directory.write(key::event_channel, queue.tx_channel.port().raw);
    TRY(directory.write(key::event_channel_tx, queue.tx_channel.port().raw));
    return directory.write(key::event_channel_rx, queue.rx_channel.port().raw);
}

// netif.h: flat keys for one queue, and only then; with more, a directory a queue.
Status FrontendControl::write_keys(ControlContext& context) const {
    const Directory& own = context.own;
    if (queues_.size() == 1) {
        TRY(write_queue(own, queues_[0]));
    } else {
        TRY(own.write(key::num_queues, static_cast<std::uint32_t>(queues_.size())));
        for (std::size_t i = 0; i < queues_.size(); ++i)
            TRY(write_queue(own.sub("queue-" + std::to_string(i)), queues_[i]));
    }
    if (control_) {
        TRY(own.write(key::control_ring_ref, control_->ring.refs()[0].raw));
        TRY(own.write(key::event_channel_control, control_->channel.port().raw));
    }
    TRY(own.write(key::request_rx_copy, "1"));
    TRY(own.write(key::rx_notify, "1"));
    for (const OffloadKey& row : offload_keys)
        TRY(own.write(row.name, options_.offloads.*row.member != row.inverted ? "1" : "0"));
    if (options_.multicast_control && (offer_.multicast || offer_.dynamic_multicast))
        TRY(own.write(key::request_multicast_control, "1"));
    return {};
}

void FrontendControl::remove_keys(ControlContext& context) const {
    for (const std::string_view name :
         {key::tx_ring_ref, key::rx_ring_ref, key::event_channel, key::event_channel_tx, key::event_channel_rx,
          key::num_queues, key::control_ring_ref, key::event_channel_control, key::request_multicast_control})
        (void)context.own.remove(name);
    for (unsigned i = 0; i < max_queues; ++i) (void)context.own.remove("queue-" + std::to_string(i));
}

Result<Handover> FrontendControl::hand_over() const {
    Handover handover;
    handover.journal_bytes = sizeof(Journal);
    handover.put(link_);
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const QueueShare& queue = queues_[i];
        TRY(handover.put(*ports_[i]));
        TRY(handover.put(queue.tx));
        TRY(handover.put(queue.rx));
        TRY(handover.put(queue.tx_channel));
        if (queue.rx_channel) TRY(handover.put(queue.rx_channel));
    }
    if (control_) {
        TRY(handover.put(control_->ring));
        TRY(handover.put(control_->channel));
    }
    return handover;
}

void FrontendControl::connected(ControlContext& context) {
    if (const Status status = follow_carrier(context); !status) context.log.peer(status.error());
}

// netif.h: absent means up.
Status FrontendControl::follow_carrier(ControlContext& context) {
    if (queues_.empty()) return {};
    return attachment_->carrier(TRY(context.peer.flag(key::carrier, true)));
}

Result<std::optional<std::vector<std::byte>>> FrontendControl::changed(ControlContext& context) {
    if (queues_.empty()) return std::nullopt;
    TRY(follow_carrier(context));
    const std::uint32_t wanted_mtu = TRY(mtu(context));
    TRY(attachment_->configure(link_.peer, std::min(wanted_mtu, link_.largest - 18)));
    return std::nullopt;
}

void FrontendControl::disconnect(ControlContext& context) {
    if (attachment_) (void)attachment_->carrier(false);
    remove_keys(context);
    ports_.clear();
    for (QueueShare& queue : queues_)
        for (EventChannel* channel : {&queue.tx_channel, &queue.rx_channel})
            if (*channel) context.hypervisor.close(std::move(*channel));
    queues_.clear();  // ends the rings; what the backend still maps goes into quarantine
    if (control_ && control_->channel) context.hypervisor.close(std::move(control_->channel));
    control_.reset();
}

}  // namespace
}  // namespace frontend

std::unique_ptr<DeviceControl> make_frontend_control(FrontendOptions options) {
    return std::make_unique<frontend::FrontendControl>(std::move(options));
}

}  // namespace caisson::net
