#include "backends/net/control_ring.h"

namespace caisson::net::backend {

namespace {
constexpr std::uint32_t budget = 16;
}

Result<HashControl> HashControl::make(Vif& vif, SharedSpan page, Doorbell& bell, bool successor) {
    auto ring = TRY(take_ring<ControlRing>(page, vif.journal.control, successor, 1));
    HashControl control(vif, std::move(ring), bell);
    const std::uint32_t first = control.ring_.first_unanswered(), count = control.ring_.unanswered();
    for (std::uint32_t i = 0; i != count; ++i) control.answer(control.ring_.snapshot(first + i));
    bell.due |= control.ring_.publish();
    return control;
}

Result<bool> HashControl::poll() {
    const auto taken =
        TRY(ring_.drain(budget, [&](Untrusted<ControlRequest>&& raw, std::uint32_t) { answer(std::move(raw)); }));
    if (taken > 0) bell_->due |= ring_.publish();
    return taken > 0;
}

void HashControl::answer(Untrusted<ControlRequest>&& raw) {
    const ControlCall request = std::move(raw).check(
        [&](const ControlRequest& bytes) { return parse(bytes, vif_->journal.hash.mapping_size); });
    ring_.push(request.refused ? request.response(*request.refused) : serve(request));
    vif_->journal.control.settle();
}

ControlResponse HashControl::serve(const ControlCall& request) {
    using enum ControlType;
    ReceiveHash& hash = vif_->journal.hash;
    const bool chosen = hash.algorithm != hash_algorithm::none;  // netif.h: needed before the flags make sense
    switch (request.type) {
        case set_hash_algorithm: hash.algorithm = request.value; return request.response(control_status::success);
        case get_hash_flags:
            if (!chosen) return request.response(control_status::not_supported);
            return request.response(control_status::success, hash_type::all);
        case set_hash_flags:
            if (!chosen) return request.response(control_status::not_supported);
            hash.types = request.value;
            return request.response(control_status::success);
        case get_hash_mapping_size: return request.response(control_status::success, max_hash_mapping);
        case set_hash_mapping_size:
            hash.mapping_size = request.value;
            hash.mapping.fill(0);
            return request.response(control_status::success);
        case set_hash_key: return request.response(set_key(request));
        case set_hash_mapping: return request.response(set_mapping(request));
        default: return request.response(control_status::not_supported);
    }
}

std::uint32_t HashControl::set_key(const ControlCall& request) {
    std::array<std::uint8_t, max_hash_key> key{};
    if (!fetch(request.page, std::as_writable_bytes(std::span(key)).first(request.count)))
        return control_status::invalid_parameter;
    vif_->journal.hash.key = key;
    vif_->journal.hash.key_bytes = request.count;
    return control_status::success;
}

std::uint32_t HashControl::set_mapping(const ControlCall& request) {
    std::array<std::uint32_t, max_hash_mapping> table;
    const std::span entries = std::span(table).first(request.count);
    if (!fetch(request.page, std::as_writable_bytes(entries))) return control_status::invalid_parameter;
    for (const std::uint32_t queue : entries)
        if (queue >= vif_->config.queues) return control_status::invalid_parameter;
    for (std::size_t i = 0; i < entries.size(); ++i)
        vif_->journal.hash.mapping[request.first + i] = static_cast<std::uint8_t>(entries[i]);
    return control_status::success;
}

// One copy of the start of a page of the guest's.
bool HashControl::fetch(GrantRef page, std::span<std::byte> into) {
    if (into.empty()) return true;
    GrantCopy copy{.direction = GrantCopy::Direction::from_peer,
                   .source = {vif_->guest(), page, 0, static_cast<std::uint16_t>(into.size())},
                   .local = into.data()};
    return vif_->context.hypervisor.copy(std::span(&copy, 1)) && copy.status == GrantStatus::okay;
}

}  // namespace caisson::net::backend
