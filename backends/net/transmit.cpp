#include "backends/net/transmit.h"

namespace caisson::net::backend {

namespace {
constexpr std::uint32_t budget = 64;  // slots a turn, so that a busy guest costs its neighbours one budget
constexpr std::uint32_t longest_packet = fatal_slots + max_extras;
constexpr std::uint32_t measured_turns = 8;  // of so many, one is timed: the clock can be a call to Xen
}  // namespace

Result<Transmit> Transmit::make(Vif& vif, unsigned queue, SharedSpan page, Doorbell& bell, bool successor) {
    auto& journal = vif.journal.queues[queue].tx;
    Transmit tx(vif, queue, TRY(take_ring<TxRing>(page, journal, successor, longest_packet)), bell);
    const std::uint32_t first = tx.ring_.first_unanswered(), count = tx.ring_.unanswered();
    for (std::uint32_t i = 0; i != count; ++i) {
        const bool whole = TRY(tx.ring_.snapshot(first + i).check(
            [&](const TxRequest& slot) { return tx.assembler_.take(slot, first + i); }));
        if (whole) tx.complete(false);
    }
    bell.due |= tx.ring_.publish();
    return tx;
}

Result<bool> Transmit::poll() {
    waiting_ = must_wait();
    if (waiting_ || TRY(ring_.available()) == 0) return false;
    const bool timed = turns_++ % measured_turns == 0;
    const auto start = timed ? TokenBucket::Clock::now() : TokenBucket::Clock::time_point{};
    Status fault;
    const std::uint32_t taken = TRY(ring_.drain(budget, [&](Untrusted<TxRequest>&& slot, std::uint32_t index) {
        auto whole = std::move(slot).check([&](const TxRequest& raw) { return assembler_.take(raw, index); });
        if (!whole) {
            fault = std::unexpected(whole.error());
            ring_.mark_broken(std::move(whole).error());
        } else if (*whole) {
            complete(true);
        }
    }));
    TRY(std::move(fault));
    if (taken == 0) return false;
    stats().requests.add(taken);
    bell_->due |= ring_.publish();
    if (timed) stats().latency.record(TokenBucket::Clock::now() - start);
    return true;
}

bool Transmit::must_wait() {
    if (!vif_->bucket.empty() && !vif_->refusals.empty()) return false;
    const auto now = TokenBucket::Clock::now();
    const bool rate = vif_->bucket.ready(now), refusals = vif_->refusals.ready(now);
    return !rate || !refusals;
}

Result<bool> Transmit::arm() {
    if (waiting_) return false;
    return ring_.arm();
}

void Transmit::complete(bool send) {
    const TxPacket& packet = assembler_.packet();
    const std::int16_t result = send ? serve(packet) : status::dropped;
    if (result == status::error) vif_->refusals.take(1);
    if (result != status::okay) (result == status::error ? stats().errors : stats().dropped).add(1);
    for (unsigned slot = 0; slot < packet.slots; ++slot) ring_.push(packet.response(slot, result));
    journal_->settle();
    stats().responses.add(packet.slots);
}

std::int16_t Transmit::serve(const TxPacket& packet) {
    if (packet.rejected != nullptr) return vif_->context.log.peer(packet.rejected), status::error;
    if (packet.multicast_only()) return vif_->refusals.take(1), change_multicast(packet.extras);  // no bytes to charge
    vif_->bucket.take(packet.size);

    Frame frame{.size = packet.size};
    if (!gather(packet, frame)) return status::error;
    const std::span head(head_.data(), frame.head.size());
    frame.headers = parse_headers(head);
    if (const char* why = vif_->source.refuses(head, frame.headers)) return vif_->context.log.peer(why), status::error;
    const Offload offload{packet.csum_blank, packet.data_validated, packet.extras.gso};
    const auto virtio = to_virtio(offload, head, frame.headers, packet.size);
    if (!virtio) return status::error;
    frame.virtio = *virtio;

    stats().bytes_in.add(packet.size);
    return vif_->host->send(queue_, frame) ? status::okay : status::dropped;
}

std::int16_t Transmit::change_multicast(const Extras& extras) {
    if (extras.mcast_del) vif_->multicast.remove(*extras.mcast_del);
    if (extras.mcast_add && !vif_->multicast.add(*extras.mcast_add)) return status::error;
    return status::okay;
}

// Fills in head, shared and tail. False: a grant could not be reached, and nothing was sent.
bool Transmit::gather(const TxPacket& packet, Frame& frame) {
    return vif_->direct ? gather_in_place(packet, frame) : gather_copies(packet, frame);
}

bool Transmit::gather_in_place(const TxPacket& packet, Frame& frame) {
    const std::size_t wanted = std::min<std::size_t>(packet.size, header_bytes);
    std::size_t filled = 0, rest = 0;
    for (unsigned i = 0; i < packet.count; ++i) {
        const TxSlice& slice = packet.slices[i];
        GrantStatus status = GrantStatus::okay;
        const SharedSpan bytes = vif_->context.hypervisor.view({vif_->guest(), slice.ref, slice.offset, slice.length},
                                                               Access::read_only, status);
        if (bytes.size() != slice.length) return false;
        const std::size_t now = std::min<std::size_t>(slice.length, wanted - filled);
        if (now > 0 && !bytes.copy_out(0, std::span(head_).subspan(filled, now))) return false;
        filled += now;
        if (now < slice.length) rest_[rest++] = bytes.subspan(now, slice.length - now);
    }
    frame.head = std::span(head_).first(filled);
    frame.shared = std::span(rest_).first(rest);
    return true;
}

bool Transmit::gather_copies(const TxPacket& packet, Frame& frame) {
    std::array<GrantCopy, max_slots> copies;
    std::byte* to = vif_->private_packet.data();
    for (unsigned i = 0; i < packet.count; ++i) {
        const TxSlice& slice = packet.slices[i];
        copies[i] = {.direction = GrantCopy::Direction::from_peer,
                     .source = {vif_->guest(), slice.ref, slice.offset, slice.length},
                     .local = to};
        to += slice.length;
    }
    const std::span batch = std::span(copies).first(packet.count);
    if (!vif_->context.hypervisor.copy(batch)) return false;
    for (const GrantCopy& one : batch)  // each its own (XSA-361, XSA-365)
        if (one.status != GrantStatus::okay) return false;
    const std::size_t wanted = std::min<std::size_t>(packet.size, header_bytes);
    std::memcpy(head_.data(), vif_->private_packet.data(), wanted);
    frame.head = std::span(head_).first(wanted);
    frame.tail = std::span(vif_->private_packet).subspan(wanted, packet.size - wanted);
    return true;
}

}  // namespace caisson::net::backend
