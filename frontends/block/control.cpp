#include <algorithm>

#include "frontends/block/block.h"
#include "frontends/block/link.h"

namespace caisson::block {

namespace frontend {
namespace {

struct QueueShare {
    SharedPages ring;
    EventChannel channel;
};

class FrontendControl final : public DeviceControl {
  public:
    explicit FrontendControl(FrontendOptions options) : options_(std::move(options)) {}

    Status offer(ControlContext& context) override;
    Result<Handover> connect(ControlContext& context) override;
    // As Linux' blkfront: Initialised now; what the disk is stands in xenstore once the backend is Connected.
    bool connected_at_once() const override { return false; }
    void disconnect(ControlContext& context) override;
    std::vector<std::string> watched_peer() const override { return watched_features(); }
    Result<std::optional<std::vector<std::byte>>> changed(ControlContext& context) override;

  private:
    Status share(ControlContext& context);
    Status share_arena(ControlContext& context);
    void keep_data(SharedPages& arena) const;
    Status write_keys(ControlContext& context) const;
    Status write_queue(const Directory& directory, const QueueShare& queue) const;
    void remove_keys(ControlContext& context) const;
    Result<Handover> hand_over() const;

    FrontendOptions options_;
    std::optional<KeptMemory> kept_;
    std::unique_ptr<Attachment> attachment_;
    Link link_;
    Transport transport_;
    SharedPages arena_, descriptors_;  // the arena stays until the next one has its data
    std::vector<QueueShare> queues_;   // not empty: connected
};

Status FrontendControl::offer(ControlContext& context) {
    if (!kept_) kept_ = TRY(KeptMemory::make());
    if (attachment_ || !options_.attachment) return {};
    auto opened = options_.attachment(context);
    if (opened) {
        attachment_ = std::move(*opened);
    } else {  // the disk is still good for programs that bring their own data path
        context.log.say("no file for this disk: " + opened.error().message());
        options_.attachment = {};
    }
    return {};
}

Result<Handover> FrontendControl::connect(ControlContext& context) {
    if (!queues_.empty()) disconnect(context);
    TRY(offer(context));  // a backend may be waiting before we ever looked
    TRY(share(context));
    TRY(context.own.store().transaction([&] { return write_keys(context); }));
    return hand_over();
}

Status FrontendControl::share(ControlContext& context) {
    transport_ = TRY(read_transport(context.peer));
    transport_.queues = std::clamp(options_.queues, 1u, transport_.queues);
    transport_.ring_order = std::min(options_.ring_order, transport_.ring_order);
    kept_->write({});  // not connected yet
    TRY(share_arena(context));
    const DomainId peer = context.address.peer();
    descriptors_ = TRY(context.hypervisor.share(peer, descriptor_pages, Access::read_write));
    for (unsigned i = 0; i < transport_.queues; ++i) {
        QueueShare& queue = queues_.emplace_back();
        queue.ring = TRY(context.hypervisor.share(peer, 1u << transport_.ring_order, Access::read_write));
        RingIndices unused;
        (void)FrontRing<Native>::initialise(queue.ring.memory(), unused);
        queue.channel = TRY(context.hypervisor.allocate_unbound(peer));
    }
    link_ = {.queues = transport_.queues,
             .arena_pages = static_cast<std::uint32_t>(arena_.refs().size()),
             .attachment = attachment_ ? attachment_->kind() : Attachment::Kind::none};
    return {};
}

// New pages for each connection: whatever a backend that was sent away still does to the old ones touches nobody. Their
// number never changes, because the journal names them.
Status FrontendControl::share_arena(ControlContext& context) {
    const DomainId peer = context.address.peer();
    if (arena_) {
        SharedPages fresh = TRY(context.hypervisor.share(peer, link_.arena_pages, Access::read_write));
        keep_data(fresh);
        arena_ = std::move(fresh);
        return {};
    }
    const std::uint32_t most = std::clamp(context.hypervisor.capabilities().max_pages_per_share, 1u, most_arena_pages);
    std::uint32_t pages = std::min(std::max(options_.arena_pages, pages_a_request), most);
    auto shared = context.hypervisor.share(peer, pages, Access::read_write);
    while (!shared && pages / 2 >= pages_a_request)
        shared = context.hypervisor.share(peer, pages /= 2, Access::read_write);
    arena_ = TRY(std::move(shared));
    return {};
}

// Data of requests that will be issued again. The same domain may see all that it saw before (a Buffer's content, too);
// another one sees what is meant for it.
void FrontendControl::keep_data(SharedPages& arena) const {
    if (arena_.peer() == arena.peer()) return (void)arena_.memory().copy_to(arena.memory());
    for (const Entry& entry : (*kept_)->disk.entries) {  // a worker may have written anything there
        if (entry.state == Entry::free) continue;
        const std::size_t pages = std::min<std::size_t>(entry.pages, pages_a_request);
        for (const std::uint16_t page : std::span(entry.page).first(pages)) {
            const std::size_t at = std::size_t{page} * page_size;
            (void)arena_.memory().subspan(at, page_size).copy_to(arena.memory().subspan(at, page_size));
        }
    }
}

Status FrontendControl::write_queue(const Directory& directory, const QueueShare& queue) const {
    const auto refs = queue.ring.refs();
    if (refs.size() == 1) TRY(directory.write(key::ring_ref, refs[0].raw));
    for (std::size_t i = 0; i < refs.size() && refs.size() > 1; ++i)
        TRY(directory.write(std::string(key::ring_ref) + std::to_string(i), refs[i].raw));
    return directory.write(key::event_channel, queue.channel.port().raw);
}

Status FrontendControl::write_keys(ControlContext& context) const {
    const Directory& own = context.own;
    if (transport_.ring_order > 0) TRY(own.write(key::ring_order, transport_.ring_order));
    if (queues_.size() == 1) {
        TRY(write_queue(own, queues_[0]));
    } else {
        TRY(own.write(key::num_queues, static_cast<std::uint32_t>(queues_.size())));
        for (std::size_t i = 0; i < queues_.size(); ++i)
            TRY(write_queue(own.sub("queue-" + std::to_string(i)), queues_[i]));
    }
    TRY(own.write(key::feature_persistent, options_.persistent ? "1" : "0"));
    return own.write(key::protocol, protocol_native);
}

void FrontendControl::remove_keys(ControlContext& context) const {
    for (const std::string_view name :
         {key::ring_order, key::num_queues, key::ring_ref, key::event_channel, key::feature_persistent, key::protocol})
        (void)context.own.remove(name);
    for (unsigned i = 0; i < (1u << max_ring_order); ++i)
        (void)context.own.remove(std::string(key::ring_ref) + std::to_string(i));
    for (unsigned i = 0; i < max_queues; ++i) (void)context.own.remove("queue-" + std::to_string(i));
}

Result<Handover> FrontendControl::hand_over() const {
    Handover handover;
    handover.journal_bytes = sizeof(ConnectionJournal);
    handover.put(link_);
    TRY(handover.put(kept_->fd()));
    TRY(handover.put(arena_));
    TRY(handover.put(descriptors_));
    for (const QueueShare& queue : queues_) {
        TRY(handover.put(queue.ring));
        TRY(handover.put(queue.channel));
    }
    if (attachment_) TRY(handover.put(attachment_->descriptor()));
    return handover;
}

Result<std::optional<std::vector<std::byte>>> FrontendControl::changed(ControlContext& context) {
    if (queues_.empty()) return std::nullopt;
    const Features features = TRY(read_features(context.own, context.peer));
    if (!features.connected) return std::nullopt;
    if (attachment_)
        if (const Status there = attachment_->connected(features.geometry); !there)
            context.log.say("no file for this disk: " + there.error().message());
    kept_->write(features);
    const auto bytes = std::as_bytes(std::span(&features, 1));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
}

void FrontendControl::disconnect(ControlContext& context) {
    remove_keys(context);
    if (kept_) kept_->write({});
    for (QueueShare& queue : queues_)
        if (queue.channel) context.hypervisor.close(std::move(queue.channel));
    queues_.clear();  // ends the rings; what the backend still maps goes into quarantine
    descriptors_ = {};
}

}  // namespace
}  // namespace frontend

std::unique_ptr<DeviceControl> make_frontend_control(FrontendOptions options) {
    return std::make_unique<frontend::FrontendControl>(std::move(options));
}

}  // namespace caisson::block
