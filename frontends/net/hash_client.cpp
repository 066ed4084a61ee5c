#include "frontends/net/hash_client.h"

#include <array>

namespace caisson::net::frontend {

namespace {

constexpr unsigned mapping_entries = 64;  // enough to spread 8 queues evenly; every known backend takes 128

// Microsoft's verification key, which every network card's driver uses: nothing about it needs to be secret.
constexpr std::array<std::uint8_t, max_hash_key> verification_key{
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

constexpr std::array steps{ControlType::set_hash_algorithm, ControlType::set_hash_flags, ControlType::set_hash_key,
                           ControlType::set_hash_mapping_size, ControlType::set_hash_mapping};

}  // namespace

Result<HashClient> HashClient::make(Setup setup) {
    HashClient client(setup, TRY(FrontRing<ControlRing>::attach(setup.ring, setup.journal.ring)));
    ControlJournal& journal = setup.journal;
    if (client.ring_.outstanding() > 1) return host_fault(EBADMSG, "journal: control requests");
    client.owed_ = client.ring_.outstanding() == 1;
    if (journal.pages.state == ArenaRecord::shared) {  // read-only pages come back without memory: only to be ended
        if (auto old = setup.hypervisor.reclaim(GrantRef(journal.pages.first))) client.tables_ = std::move(*old);
        end_noted(client.tables_, journal.pages);
    }
    if (journal.done != 0) return client;
    TRY(client.share_tables());
    return client;
}

Status HashClient::share_tables() {
    tables_ = TRY(share_noted(setup_.hypervisor, setup_.peer, 2, Access::read_only, setup_.journal.pages));
    std::array<std::uint32_t, mapping_entries> mapping;
    for (std::uint32_t i = 0; i < mapping_entries; ++i) mapping[i] = i % setup_.queues;
    (void)tables_.memory().copy_in(0, std::as_bytes(std::span(verification_key)));
    (void)tables_.memory().copy_in(page_size, std::as_bytes(std::span(mapping)));
    return {};
}

ControlType HashClient::next_type() const { return giving_up_ ? ControlType::set_hash_algorithm : steps[step_]; }

ControlRequest HashClient::next_request() const {
    ControlRequest request{static_cast<std::uint16_t>(setup_.journal.next_id), std::to_underlying(next_type()), {}};
    switch (next_type()) {
        case ControlType::set_hash_algorithm:
            request.data[0] = giving_up_ ? hash_algorithm::none : hash_algorithm::toeplitz;
            break;
        case ControlType::set_hash_flags: request.data[0] = hash_type::all; break;
        case ControlType::set_hash_key: request.data = {tables_.refs()[0].raw, verification_key.size(), 0}; break;
        case ControlType::set_hash_mapping_size: request.data[0] = mapping_entries; break;
        case ControlType::set_hash_mapping: request.data = {tables_.refs()[1].raw, mapping_entries, 0}; break;
        default: break;
    }
    return request;
}

Result<bool> HashClient::poll(bool& notify) {
    const std::uint32_t taken = TRY(ring_.drain(1, [&](Untrusted<ControlResponse>&& raw, std::uint32_t) {
        Status status = std::move(raw).check([&](const ControlResponse& response) { return answer(response); });
        if (!status) ring_.mark_broken(std::move(status).error());
    }));
    if (ring_.broken()) return std::unexpected(ring_.fault());
    if (done() || ring_.outstanding() > 0) return taken > 0;
    ring_.push(next_request());
    notify |= ring_.publish();
    return true;
}

Status HashClient::answer(const ControlResponse& response) {
    if (std::exchange(owed_, false)) return {};  // whatever it was: everything is asked again
    const auto id = static_cast<std::uint16_t>(setup_.journal.next_id);
    if (response.id != id) return peer_fault("control response id", response.id, Wanted::exactly, id);
    const auto type = std::to_underlying(next_type());
    if (response.type != type) return peer_fault("control response type", response.type, Wanted::exactly, type);
    if (response.status > control_status::buffer_overflow)
        return peer_fault("control response status", response.status, Wanted::at_most, control_status::buffer_overflow);
    setup_.journal.next_id += 1;
    if (giving_up_ || (response.status != control_status::success && step_ == 0))
        finish(false);
    else if (response.status != control_status::success)
        giving_up_ = true;
    else if (++step_ == steps.size())
        finish(true);
    return {};
}

void HashClient::finish(bool agreed) {
    agreed_ = agreed;
    setup_.journal.done = 1;
    end_noted(tables_, setup_.journal.pages);  // netif.h: they must stay valid until the response, no longer
}

}  // namespace caisson::net::frontend
