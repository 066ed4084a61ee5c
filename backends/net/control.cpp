#include "backends/net/control.h"

#include <arpa/inet.h>

namespace caisson::net::backend {

namespace {

Result<std::string> text_or_empty(const Directory& directory, std::string_view key) {
    return TRY(directory.text(key)).value_or("");
}

bool ends_in(std::string_view path, std::string_view name) {
    return path == name ||
           (path.size() > name.size() && path.ends_with(name) && path[path.size() - name.size() - 1] == '/');
}

}  // namespace

Result<GuestAddresses> parse_addresses(std::string_view text) {
    GuestAddresses out;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find_first_of(" ,"), text.size());
        std::string one(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (one.empty()) continue;
        one = one.substr(0, one.find('/'));
        std::array<std::uint8_t, 16> bytes{};
        if (::inet_pton(AF_INET, one.c_str(), bytes.data()) == 1) {
            if (out.v4_count == GuestAddresses::most) return host_fault(EINVAL, "too many addresses in ip=");
            std::memcpy(out.v4[out.v4_count++].data(), bytes.data(), 4);
        } else if (::inet_pton(AF_INET6, one.c_str(), bytes.data()) == 1) {
            if (out.v6_count == GuestAddresses::most) return host_fault(EINVAL, "too many addresses in ip=");
            out.v6[out.v6_count++] = bytes;
        } else {
            return host_fault(EINVAL, "not an address in ip=", one);
        }
    }
    return out;
}

Result<Rate> parse_rate(std::string_view text) {
    const std::size_t comma = text.find(',');
    if (comma == text.npos) return host_fault(EINVAL, "rate is not bytes,microseconds", std::string(text));
    const auto bytes = parse_decimal<std::uint64_t>(text.substr(0, comma));
    const auto microseconds = parse_decimal<std::uint64_t>(text.substr(comma + 1));
    if (!bytes || !microseconds) return host_fault(EINVAL, "rate is not bytes,microseconds", std::string(text));
    return Rate{*bytes, *microseconds};
}

// ---- Offering
// ----------------------------------------------------------------------------------------------------------

Status Control::offer(ControlContext& context) {
    TRY(read_settings(context));
    TRY(open_host(context));
    TRY(publish_features(context));
    return context.own.write(key::hotplug_status, "connected");
}

// Our own directory: the toolstack wrote it, but a typing error of an operator is in there, too.
Status Control::read_settings(ControlContext& context) {
    const Directory& own = context.own;
    const std::string mac = TRY(text_or_empty(own, key::mac));
    if (!mac.empty()) {
        const auto parsed = parse_mac(mac);
        if (!parsed) return host_fault(EINVAL, "mac", mac);
        config_.mac = *parsed;
        config_.has_mac = true;
    }
    const std::string addresses = TRY(text_or_empty(own, key::ip));
    config_.addresses = TRY(parse_addresses(addresses));
    const std::string rate = TRY(text_or_empty(own, key::rate));
    if (!rate.empty()) config_.rate = TRY(parse_rate(rate));
    if (const std::string mtu = TRY(text_or_empty(own, key::mtu)); !mtu.empty()) {
        const auto parsed = parse_decimal<std::uint32_t>(mtu);
        if (!parsed || *parsed < min_mtu || *parsed > max_mtu) return host_fault(EINVAL, "mtu", mtu);
        config_.mtu = *parsed;
    }
    bridge_ = TRY(text_or_empty(own, key::bridge));
    script_ = TRY(text_or_empty(own, key::script));
    gateway_ = TRY(text_or_empty(own, key::gateway_device));
    vifname_ = TRY(text_or_empty(own, key::vifname));
    if (vifname_.empty())
        vifname_ = "vif" + std::to_string(context.address.frontend.raw) + "." + std::to_string(context.address.id.raw);
    return {};
}

// Once; the host stays open while the frontend comes and goes. How it is chosen: README.md.
Status Control::open_host(ControlContext&) {
    if (ends_in(script_, "caisson-null")) return config_.host = HostKind::null, Status{};
    if (ends_in(script_, "vif-route")) bridge_.clear();  // libxl writes its default bridge all the same
    const bool asked = ends_in(script_, "caisson-switch");
    if (asked || (!bridge_.empty() && !bridge_exists(bridge_))) {
        if (bridge_.empty()) return host_fault(EINVAL, "caisson-switch needs bridge=NAME");
        config_.host = HostKind::network_switch;
        config_.uplink = !gateway_.empty();
        return config_.uplink ? open_tap(gateway_) : Status{};
    }
    config_.host = HostKind::tap;
    if (tap_) return {};
    TRY(open_tap(vifname_));
    if (!bridge_.empty()) return tap_->join(bridge_);
    return config_.addresses.enforced() ? tap_->route(config_.addresses, gateway_) : Status{};
}

Status Control::open_tap(const std::string& name) {
    if (tap_) return {};
    TapInterface tap = TRY(TapInterface::make(name));
    TRY(tap.set_mtu(config_.mtu));
    TRY(tap.up());
    tap_ = std::move(tap);
    return {};
}

Status Control::publish_features(ControlContext& context) {
    const Directory& own = context.own;
    // What we can receive is everything: any host takes a virtio header.
    const Offloads all{true, true, true, true, true};
    for (const OffloadKey& row : offload_keys) TRY(own.write(row.name, (all.*row.member != row.inverted) ? 1u : 0u));
    for (const auto name : {key::rx_copy, key::split_channels, key::multicast_control, key::dynamic_multicast_control,
                            key::control_ring, key::carrier})
        TRY(own.write(name, 1u));
    TRY(own.write(key::rx_flip, 0u));
    return own.write(key::max_queues, max_queues);
}

// ---- Connecting
// --------------------------------------------------------------------------------------------------------

Result<Handover> Control::connect(ControlContext& context) {
    TRY(read_frontend(context));
    if (tap_) {
        TRY(tap_->set_queues(config_.host == HostKind::tap ? config_.queues : 1));
        const Offloads all{true, true, true, true, true};
        TRY(tap_->set_offloads(config_.host == HostKind::tap ? config_.offloads : all));
    }
    Handover handover;
    handover.journal_bytes = sizeof(Journal);
    handover.put(config_);
    for (unsigned n = 0; n < config_.queues; ++n)
        TRY(bind_queue(context, config_.queues == 1 ? context.peer : context.peer.sub("queue-" + std::to_string(n)),
                       handover));
    if (config_.control_ring) TRY(put_control_ring(context, handover));
    if (tap_)
        for (const Fd& queue : tap_->queues()) TRY(handover.put(queue));
    return handover;
}

// Everything here is the peer's: strict decimal, read once, within our limits.
Status Control::read_frontend(ControlContext& context) {
    const Directory& peer = context.peer;
    if (!TRY(peer.flag(key::request_rx_copy))) return peer_fault("frontend does not ask for rx-copy");
    config_.queues = TRY(peer.number(key::num_queues, 1));
    if (config_.queues == 0) return peer_fault("queues", 0, Wanted::at_least, 1);
    if (config_.queues > max_queues) return peer_fault("queues", config_.queues, Wanted::at_most, max_queues);
    Offloads offloads;
    for (const OffloadKey& row : offload_keys)
        offloads.*row.member = TRY(peer.flag(row.name, row.absent != row.inverted)) != row.inverted;
    config_.offloads = consistent(offloads);
    // A TAP knows checksum offload for both families or for none.
    if (!(config_.offloads.csum_ipv4 && config_.offloads.csum_ipv6))
        config_.offloads = {.scatter_gather = config_.offloads.scatter_gather};
    config_.rx_notify = TRY(peer.flag(key::rx_notify));
    config_.multicast_control = TRY(peer.flag(key::request_multicast_control));
    config_.control_ring = TRY(peer.text(key::control_ring_ref)).has_value();
    const Directory first = config_.queues == 1 ? peer : peer.sub("queue-0");
    config_.split_channels = TRY(first.text(key::event_channel_tx)).has_value();
    return {};
}

Status Control::bind_queue(ControlContext& context, const Directory& keys, Handover& handover) {
    const std::uint32_t tx = TRY(keys.number(key::tx_ring_ref)), rx = TRY(keys.number(key::rx_ring_ref));
    handover.put(GrantRef(tx));
    handover.put(GrantRef(rx));
    if (!config_.split_channels) {
        const std::uint32_t port = TRY(keys.number(key::event_channel));
        return bind(context, port, handover);
    }
    const std::uint32_t tx_port = TRY(keys.number(key::event_channel_tx));
    const std::uint32_t rx_port = TRY(keys.number(key::event_channel_rx));
    TRY(bind(context, tx_port, handover));
    return bind(context, rx_port, handover);
}

Status Control::put_control_ring(ControlContext& context, Handover& handover) {
    const std::uint32_t ref = TRY(context.peer.number(key::control_ring_ref));
    const std::uint32_t port = TRY(context.peer.number(key::event_channel_control));
    handover.put(GrantRef(ref));
    return bind(context, port, handover);
}

Status Control::bind(ControlContext& context, std::uint32_t port, Handover& handover) {
    channels_.push_back(TRY(context.hypervisor.bind_interdomain(context.address.frontend, Port(port))));
    return handover.put(channels_.back());
}

void Control::disconnect(ControlContext& context) {
    for (EventChannel& channel : channels_) context.hypervisor.close(std::move(channel));
    channels_.clear();
    if (tap_) (void)tap_->set_queues(1);
}

std::vector<std::string> Control::watched_peer() const { return {std::string(key::request_multicast_control)}; }

Result<std::optional<std::vector<std::byte>>> Control::changed(ControlContext& context) {
    const bool wanted = TRY(context.peer.flag(key::request_multicast_control));
    if (wanted == std::exchange(config_.multicast_control, wanted)) return std::nullopt;
    return std::vector{wanted ? std::byte{1} : std::byte{0}};
}

std::string Control::worker_group() const { return config_.host == HostKind::network_switch ? bridge_ : std::string(); }

}  // namespace caisson::net::backend
