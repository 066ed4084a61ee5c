#include "backends/block/control.h"

#include "backends/block/journal.h"

namespace caisson::block::backend {

namespace wire = block::key;

namespace {

// blkback keeps 1056 pages a ring; a queue's private memory holds 2 requests of the largest size.
constexpr std::uint32_t persistent_pages_a_queue = 1056;
constexpr std::uint32_t bounce_bytes_a_queue = 2 * max_request_bytes;

Result<std::string> text_or_empty(const Directory& directory, std::string_view key) {
    return TRY(directory.text(key)).value_or("");
}

}  // namespace

Result<RateText> parse_rate(std::string_view text) {
    const std::size_t comma = text.find(',');
    const auto rate = parse_decimal<std::uint64_t>(text.substr(0, comma));
    const auto burst = comma == text.npos ? 0 : parse_decimal<std::uint64_t>(text.substr(comma + 1));
    if (!rate || !burst) return host_fault(EINVAL, "rate is not N or N,BURST", std::string(text));
    return RateText{*rate, *burst};
}

// ---- Offering ------------------------------------------------------------------------------------------------------

Status Control::offer(ControlContext& context) {
    const Directory& own = context.own;
    if (!target_) target_ = TRY(open_target(own));  // stays open while the frontend comes and goes
    config_.rate = {};
    if (const std::string rate = TRY(text_or_empty(own, key::rate_requests)); !rate.empty()) {
        const RateText parsed = TRY(parse_rate(rate));
        config_.rate.requests_per_second = parsed.per_second;
        config_.rate.requests_burst = parsed.burst;
    }
    if (const std::string rate = TRY(text_or_empty(own, key::rate_bytes)); !rate.empty()) {
        const RateText parsed = TRY(parse_rate(rate));
        config_.rate.bytes_per_second = parsed.per_second;
        config_.rate.bytes_burst = parsed.burst;
    }
    config_.nbd_patience = TRY(own.number(key::nbd_patience, Config{}.nbd_patience));
    config_.sectors_are_blocks = TRY(own.flag(wire::quirk_logical_blocks));
    TRY(publish_features(context));
    return own.write(wire::hotplug_status, "connected");
}

Status Control::publish_features(ControlContext& context) {
    const Directory& own = context.own;
    const Geometry& disk = target_->geometry;
    TRY(own.write(wire::feature_barrier, disk.barrier ? 1u : 0u));
    TRY(own.write(wire::feature_flush, disk.flush ? 1u : 0u));
    TRY(own.write(wire::feature_discard, disk.discard ? 1u : 0u));
    if (disk.discard) {
        TRY(own.write(wire::discard_granularity, disk.discard_granularity));
        TRY(own.write(wire::discard_alignment, disk.discard_alignment));
        TRY(own.write(wire::discard_secure, disk.discard_secure ? 1u : 0u));
    }
    TRY(own.write(wire::feature_persistent, 1u));
    TRY(own.write(wire::max_indirect_segments, max_indirect_segments));
    TRY(own.write(wire::max_ring_order, max_ring_order));
    TRY(own.write(wire::online_resize, 1u));
    return own.write(wire::max_queues, max_queues);
}

// ---- Connecting ----------------------------------------------------------------------------------------------------

Result<Handover> Control::connect(ControlContext& context) {
    // The target may have grown while nobody was connected.
    if (const auto sectors = target_->look_again()) target_->geometry.sectors = *sectors;
    TRY(read_frontend(context));
    target_->describe(config_);
    config_.max_persistent = persistent_pages_a_queue * config_.queues;
    config_.bounce_bytes = bounce_bytes_a_queue * config_.queues;
    TRY(publish_disk(context));

    Handover handover;
    handover.journal_bytes = journal_bytes(config_);
    handover.put(config_);
    for (unsigned n = 0; n < config_.queues; ++n)
        TRY(put_queue(context, config_.queues == 1 ? context.peer : context.peer.sub("queue-" + std::to_string(n)),
                      handover));
    lost_ = TRY(text_or_empty(context.own, key::nbd_lost));  // of a worker that is gone
    TRY(target_->hand_over(handover));
    return handover;
}

Status Control::publish_disk(ControlContext& context) {
    const Directory& own = context.own;
    const Geometry& disk = target_->geometry;
    announced_ = std::to_string(config_.announced(disk.sectors));
    TRY(own.write(wire::sectors, std::string_view(announced_)));
    TRY(own.write(wire::info, disk.info));
    TRY(own.write(wire::sector_size, disk.sector_size));
    return own.write(wire::physical_sector_size, disk.physical_sector_size);
}

// Everything here is the peer's: strict decimal, read once, within our limits.
Status Control::read_frontend(ControlContext& context) {
    const Directory& peer = context.peer;
    TRY(read_abi(peer));
    config_.queues = TRY(peer.number(wire::num_queues, 1));
    if (config_.queues == 0) return peer_fault("queues", 0, Wanted::at_least, 1);
    if (config_.queues > max_queues) return peer_fault("queues", config_.queues, Wanted::at_most, max_queues);
    const auto order = TRY(peer.text(wire::ring_order));
    const std::uint32_t pages_order = TRY(peer.number(wire::ring_order, 0));
    if (pages_order > max_ring_order)
        return peer_fault("ring-page-order", pages_order, Wanted::at_most, max_ring_order);
    config_.ring_pages = 1u << pages_order;
    numbered_refs_ = order.has_value();
    config_.persistent = TRY(peer.flag(wire::feature_persistent));
    return {};
}

Status Control::read_abi(const Directory& peer) {
    const std::string name = TRY(text_or_empty(peer, wire::protocol));
    if (name.empty() || name == protocol_x86_64 || name == protocol_arm) return config_.abi = Abi::native, Status{};
    if (name == protocol_x86_32) return config_.abi = Abi::x86_32, Status{};
    return peer_fault("unknown protocol");
}

Status Control::put_queue(ControlContext& context, const Directory& keys, Handover& handover) {
    std::vector<GrantRef> refs;
    // A ring of one page may be written either way, whether or not the frontend says an order.
    const bool single = config_.ring_pages == 1 && (!numbered_refs_ || TRY(keys.text(wire::ring_ref)).has_value());
    for (std::uint32_t i = 0; i < config_.ring_pages; ++i) {
        const std::string name = std::string(wire::ring_ref) + (single ? "" : std::to_string(i));
        refs.emplace_back(TRY(keys.number(name)));
    }
    handover.put(std::span<const GrantRef>(refs));
    const std::uint32_t port = TRY(keys.number(wire::event_channel));
    channels_.push_back(TRY(context.hypervisor.bind_interdomain(context.address.frontend, Port(port))));
    return handover.put(channels_.back());
}

void Control::disconnect(ControlContext& context) {
    for (EventChannel& channel : channels_) context.hypervisor.close(std::move(channel));
    channels_.clear();
}

// ---- Resizing ------------------------------------------------------------------------------------------------------

std::vector<std::string> Control::watched_own() const {
    return {std::string(key::resize), std::string(wire::sectors), std::string(key::nbd_lost)};
}

// The worker asks again, later and later, while there is nothing to connect to.
Status Control::renew_connection(ControlContext& context) {
    const std::string lost = TRY(text_or_empty(context.own, key::nbd_lost));
    if (lost == std::exchange(lost_, lost)) return {};
    const auto number = parse_decimal<std::uint64_t>(std::string_view(lost).substr(0, lost.find('.')));
    const Status renewed = target_->renew(number.value_or(0));
    if (!renewed && !away_) context.log.say(renewed.error().message());
    away_ = !renewed;
    return renewed;
}

// To resize online, says blkif.h, `sectors` is rewritten and then state Connected once more.
Result<std::optional<std::vector<std::byte>>> Control::changed(ControlContext& context) {
    const std::string published = TRY(text_or_empty(context.own, wire::sectors));
    if (published != announced_) {
        announced_ = published;
        TRY(context.own.write("state", "4"));
    }
    if (!renew_connection(context)) return std::nullopt;
    const auto sectors = target_->look_again();
    if (!sectors) return context.log.say(sectors.error().message()), std::nullopt;  // the disk stays as it is
    if (*sectors == target_->geometry.sectors) return std::nullopt;
    target_->geometry.sectors = *sectors;
    std::vector<std::byte> message(sizeof *sectors);
    std::memcpy(message.data(), &*sectors, sizeof *sectors);
    return message;
}

}  // namespace caisson::block::backend
