#include "backends/net/receive.h"

namespace caisson::net::backend {

namespace {

constexpr std::uint32_t longest_packet = max_slots + max_extras;  // in slots

std::uint32_t pages_of(std::uint32_t bytes) { return (bytes + page_size - 1) / page_size; }
std::uint32_t in_page(std::uint32_t bytes, std::uint32_t page) {
    return std::min<std::uint32_t>(bytes - page * page_size, page_size);
}

}  // namespace

Receive::Receive(Vif& vif, unsigned queue, BackRing<RxRing> ring, Doorbell& bell)
    : vif_(&vif),
      queue_(queue),
      ring_(std::move(ring)),
      journal_(&vif.journal.queues[queue].rx),
      bell_(&bell),
      gso_(vif.config.offloads.gso_tcpv4 || vif.config.offloads.gso_tcpv6),
      largest_(vif.config.offloads.largest(vif.config.mtu)),
      pages_(pages_of(largest_)) {}

Result<Receive> Receive::make(Vif& vif, unsigned queue, SharedSpan page, Doorbell& bell, bool successor) {
    auto& journal = vif.journal.queues[queue].rx;
    Receive rx(vif, queue, TRY(take_ring<RxRing>(page, journal, successor, longest_packet)), bell);
    rx.forget_views();
    TRY(rx.take_buffers());
    return rx;
}

RxBuffer Receive::buffer(std::uint32_t index) const {
    return ring_.snapshot(index).check([](const RxRequest& raw) { return parse(raw); });
}

Result<bool> Receive::take_buffers() {
    const std::uint32_t posted = TRY(ring_.drain(ring_slots, [](Untrusted<RxRequest>&&, std::uint32_t) {}));
    TRY(place_waiting());
    return posted > 0;
}

Result<bool> Receive::arm() {
    if (room()) return false;  // nothing that a wake-up would help
    return ring_.arm();
}

// ---- Where a packet goes
// -----------------------------------------------------------------------------------------------

Status Receive::put(const Frame& frame, const std::optional<PacketHash>& hash) {
    forget_views();  // this may be another device's turn
    if (!backlog_.empty()) return wait_for_room(frame, hash), Status{};
    switch (TRY(place(frame, hash))) {
        case Placed::placed: break;
        case Placed::dropped: drop(); break;
        case Placed::no_room: wait_for_room(frame, hash); break;
    }
    return {};
}

void Receive::wait_for_room(const Frame& frame, const std::optional<PacketHash>& hash) {
    if (backlog_.size() >= backlog_packets || waiting_bytes_ + frame.size > backlog_bytes) return drop();
    if (backlog_.empty()) waiting_since_ = std::chrono::steady_clock::now();
    Waiting one{frame.virtio, hash, std::vector<std::byte>(frame.size)};
    flatten(frame, one.bytes);
    waiting_bytes_ += frame.size;
    backlog_.push_back(std::move(one));
}

Status Receive::place_waiting() {
    while (!backlog_.empty()) {
        const Waiting& one = backlog_.front();
        Frame frame{.virtio = one.virtio, .size = static_cast<std::uint32_t>(one.bytes.size())};
        frame.head = Bytes(one.bytes).first(std::min(one.bytes.size(), header_bytes));
        frame.tail = Bytes(one.bytes).subspan(frame.head.size());
        const Placed placed = TRY(place(frame, one.hash));
        if (placed == Placed::no_room) return {};
        if (placed == Placed::dropped) drop();
        waiting_bytes_ -= one.bytes.size();
        backlog_.pop_front();
        waiting_since_ = std::chrono::steady_clock::now();
    }
    return {};
}

void Receive::purge() {
    stats().dropped.add(backlog_.size());
    backlog_.clear();
    waiting_bytes_ = 0;
}

Result<Receive::Placed> Receive::place(const Frame& frame, const std::optional<PacketHash>& hash) {
    const auto offload = from_virtio(frame.virtio);
    if (!offload || frame.size > largest_ || !vif_->config.offloads.gso(offload->gso.type)) return Placed::dropped;
    const std::uint32_t extras = (offload->gso.type != GsoType::none ? 1u : 0u) + (hash ? 1u : 0u);
    const std::uint32_t slots = pages_of(frame.size) + extras;
    if (ring_.unanswered() < slots) return Placed::no_room;
    const bool copied = vif_->direct ? reach(slots) && copy_in_place(frame, extras) : copy_by_grant(frame, extras);
    if (!copied) {
        if (!vif_->direct) refuse_buffers(slots);
        return Placed::dropped;
    }
    respond(frame.size, *offload, hash);
    return Placed::placed;
}

// Answers the next buffers with an error, each as a packet of its own: the guest cannot write there through them
// either.
void Receive::refuse_buffers(std::uint32_t slots) {
    for (std::uint32_t i = 0; i < slots; ++i) {
        ring_.push({.id = buffer(ring_.first_unanswered()).id, .offset = 0, .flags = 0, .status = status::error});
        journal_->settle();
    }
    stats().errors.add(slots);
    viewed_until_ = ring_.first_unanswered();
}

// Makes the views of the next buffers good. False when one of them cannot be written: it and those before it are given
// back as errors (the order of responses is the order of buffers).
bool Receive::reach(std::uint32_t slots) {
    const std::uint32_t first = ring_.first_unanswered();
    if (static_cast<std::int32_t>(viewed_until_ - first) < 0) viewed_until_ = first;
    for (; viewed_until_ - first < slots; ++viewed_until_) {
        GrantStatus status = GrantStatus::okay;
        SharedSpan& bytes = view(viewed_until_);
        bytes = vif_->context.hypervisor.view({vif_->guest(), buffer(viewed_until_).ref, 0, page_size},
                                              Access::read_write, status);
        if (bytes.size() != page_size) return refuse_buffers(viewed_until_ - first + 1), false;
    }
    return true;
}

// ---- Moving the bytes
// --------------------------------------------------------------------------------------------------

bool Receive::copy_in_place(const Frame& frame, std::uint32_t extras) {
    const std::uint32_t first = ring_.first_unanswered();
    std::uint32_t at = 0;
    const auto room = [&] {  // what is left of the page that `at` is in
        return view(first + slot_of(at / page_size, extras)).subspan(at % page_size, page_size - at % page_size);
    };
    const auto copy = [&](Bytes bytes) {
        while (!bytes.empty()) {
            const std::size_t now = std::min(room().size(), bytes.size());
            room().copy_in(0, bytes.first(now));
            bytes = bytes.subspan(now);
            at += static_cast<std::uint32_t>(now);
        }
    };
    copy(frame.head);
    for (SharedSpan part : frame.shared)
        while (!part.empty()) {
            const std::size_t now = std::min(room().size(), part.size());
            part.subspan(0, now).copy_to(room());
            part = part.subspan(now, part.size() - now);
            at += static_cast<std::uint32_t>(now);
        }
    copy(frame.tail);
    return at == frame.size;
}

bool Receive::copy_by_grant(const Frame& frame, std::uint32_t extras) {
    const std::uint32_t first = ring_.first_unanswered();
    std::array<GrantCopy, 2 * max_slots> copies;
    std::size_t count = 0;
    std::uint32_t at = 0;
    for (Bytes bytes : {frame.head, frame.tail})
        while (!bytes.empty()) {
            const std::size_t now = std::min<std::size_t>(page_size - at % page_size, bytes.size());
            copies[count++] = {.direction = GrantCopy::Direction::to_peer,
                               .target = {vif_->guest(), buffer(first + slot_of(at / page_size, extras)).ref,
                                          static_cast<std::uint16_t>(at % page_size), static_cast<std::uint16_t>(now)},
                               .local = const_cast<std::byte*>(bytes.data())};  // to_peer only reads it
            bytes = bytes.subspan(now);
            at += static_cast<std::uint32_t>(now);
        }
    const std::span batch = std::span(copies).first(count);
    if (at != frame.size || !vif_->context.hypervisor.copy(batch)) return false;
    return std::ranges::all_of(batch, [](const GrantCopy& one) { return one.status == GrantStatus::okay; });
}

Result<bool> Receive::receive_in_place() {
    const std::uint32_t gap = gso_ ? 1 : 0;  // a slot is left free for the GSO extra: whether it comes, the header says
    if (!reach(pages_ + gap)) return true;
    const std::uint32_t first = ring_.first_unanswered();

    VirtioHeader virtio;
    std::byte too_long;
    std::array<iovec, max_slots + 3> room;
    std::size_t count = 0;
    room[count++] = {&virtio, sizeof virtio};
    room[count++] = {head_.data(), head_.size()};
    room[count++] = view(first).subspan(header_bytes, page_size - header_bytes).for_kernel();
    for (std::uint32_t page = 1; page < pages_; ++page) room[count++] = view(first + slot_of(page, gap)).for_kernel();
    room[count++] = {&too_long, 1};

    const std::size_t bytes = vif_->host->receive(queue_, std::span(room).first(count));
    if (bytes == 0) return false;
    if (bytes < sizeof virtio + min_packet || bytes - sizeof virtio > largest_) return drop(), true;
    const auto size = static_cast<std::uint32_t>(bytes - sizeof virtio);
    const Bytes head = Bytes(head_).first(std::min<std::size_t>(size, header_bytes));
    const auto offload = from_virtio(virtio);
    if (!offload || !vif_->config.offloads.gso(offload->gso.type) || !vif_->multicast.wants(mac_at(head, 0)))
        return drop(), true;

    view(first).copy_in(0, head);
    if (offload->gso.type == GsoType::none && gap == 1) close_gap(size);
    respond(size, *offload, {});
    return true;
}

// A packet of several pages that is not GSO: it was read with a slot left free for an extra that it does not have.
void Receive::close_gap(std::uint32_t size) {
    const std::uint32_t first = ring_.first_unanswered();
    for (std::uint32_t page = 1; page < pages_of(size); ++page)
        view(first + page + 1).subspan(0, in_page(size, page)).copy_to(view(first + page));
}

void Receive::respond(std::uint32_t size, const Offload& offload, const std::optional<PacketHash>& hash) {
    const bool gso = offload.gso.type != GsoType::none;
    std::uint32_t index = ring_.first_unanswered();
    const std::uint32_t pages = pages_of(size);
    const auto page = [&](std::uint32_t n, unsigned flags) {
        if (n + 1 < pages) flags |= rx_flag::more_data;
        ring_.push({.id = buffer(index++).id,
                    .offset = 0,
                    .flags = static_cast<std::uint16_t>(flags),
                    .status = static_cast<std::int16_t>(in_page(size, n))});
    };
    unsigned flags = (offload.csum_blank ? rx_flag::csum_blank : 0u) |
                     (offload.csum_blank || offload.data_validated ? rx_flag::data_validated : 0u);
    if (gso || hash) flags |= rx_flag::extra_info;
    page(0, flags);
    if (gso) ring_.push(in_rx_slot(gso_extra(offload.gso, hash.has_value()))), ++index;
    if (hash) ring_.push(in_rx_slot(hash_extra(*hash))), ++index;
    for (std::uint32_t n = 1; n < pages; ++n) page(n, 0);
    journal_->settle();
    stats().responses.add(pages + (gso ? 1u : 0u) + (hash ? 1u : 0u));
    stats().bytes_out.add(size);
}

}  // namespace caisson::net::backend
