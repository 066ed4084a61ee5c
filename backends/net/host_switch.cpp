#include "backends/net/host_switch.h"

#include <algorithm>
#include <array>

namespace caisson::net::backend {

namespace {
constexpr unsigned packets_a_turn = 64;
}

Switch::PortNumber Switch::add(PacketSink& guest) {
    auto port = std::make_unique<Port>();
    port->number = next_port_++;
    port->guest = &guest;
    return ports_.emplace_back(std::move(port))->number;
}

Switch::PortNumber Switch::add_uplink(Fd tap) {
    auto port = std::make_unique<Port>();
    port->number = next_port_++;
    port->tap = std::move(tap);
    if (!served_) served_ = loop_->serve(*this, {});
    return ports_.emplace_back(std::move(port))->number;
}

void Switch::remove(PortNumber number) {
    std::erase_if(ports_, [&](const auto& port) { return port->number == number; });
    std::erase_if(table_, [&](const auto& entry) { return entry.second.port == number; });
}

Switch::Port* Switch::find(PortNumber number) {
    for (auto& port : ports_)
        if (port->number == number) return port.get();
    return nullptr;
}

bool Switch::forward(PortNumber from, const Frame& frame) {
    Port* source = find(from);
    if (source == nullptr) return false;
    learn(*source, frame.headers.source);
    if (!frame.headers.destination.multicast()) {
        const auto entry = table_.find(frame.headers.destination.number());
        if (entry != table_.end()) {
            if (entry->second.port == from) return true;  // its own address: it was there already
            Port* to = find(entry->second.port);
            return to != nullptr && deliver(*to, frame);
        }
    }
    bool uplink = source->guest == nullptr;  // a packet crosses one uplink queue, not all of them
    for (auto& port : ports_) {
        if (port->number == from || (port->guest == nullptr && std::exchange(uplink, true))) continue;
        deliver(*port, frame);
    }
    return true;
}

bool Switch::deliver(Port& port, const Frame& frame) {
    return port.guest != nullptr ? port.guest->deliver(frame) : write_frame(port.tap.get(), frame);
}

void Switch::learn(Port& from, Mac source) {
    if (source.multicast() || source.zero()) return;
    const auto known = table_.find(source.number());
    if (known == table_.end()) {
        const std::size_t most = from.guest != nullptr ? most_addresses_a_guest : most_addresses;
        if (table_.size() >= most_addresses || from.learned >= most) return;
        table_.emplace(source.number(), Entry{from.number, now_});
        ++from.learned;
        return;
    }
    known->second.seen = now_;
    if (known->second.port == from.number) return;
    if (Port* before = find(known->second.port)) --before->learned;
    known->second.port = from.number;
    ++from.learned;
}

void Switch::age(Clock::time_point now) {
    now_ = now;
    for (auto entry = table_.begin(); entry != table_.end();) {
        if (now - entry->second.seen < ageing) {
            ++entry;
            continue;
        }
        if (Port* port = find(entry->second.port)) --port->learned;
        entry = table_.erase(entry);
    }
}

// ---- Uplinks
// -----------------------------------------------------------------------------------------------------------

bool Switch::poll() {
    bool any = false;
    for (auto& port : ports_)
        if (port->guest == nullptr && !port->gone) any |= read_uplink(*port);
    return any;
}

bool Switch::read_uplink(Port& port) {
    for (unsigned i = 0; i < packets_a_turn; ++i) {
        VirtioHeader virtio;
        const std::array room{iovec{&virtio, sizeof virtio}, iovec{packet_.data(), packet_.size()}};
        const std::size_t got = read_frame(port.tap.get(), room, port.gone);
        if (got == 0) return i > 0;
        if (got < sizeof virtio + min_packet || got > sizeof virtio + max_packet) continue;
        const Bytes packet = Bytes(packet_).first(got - sizeof virtio);
        Frame frame{.virtio = virtio, .size = static_cast<std::uint32_t>(packet.size())};
        frame.head = packet.first(std::min(packet.size(), header_bytes));
        frame.tail = packet.subspan(frame.head.size());
        frame.headers = parse_headers(frame.head);
        forward(port.number, frame);
    }
    return true;
}

bool Switch::arm() {
    for (auto& port : ports_) {
        if (port->guest != nullptr || port->gone || port->readable) continue;
        Port* watched = port.get();
        port->readable = loop_->watch(port->tap.get(), POLLIN, [watched](short) { watched->readable.reset(); });
    }
    return false;
}

// ---- Ports
// -------------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Host>> SwitchPort::make(std::shared_ptr<void>& group, Loop& loop, const Config& config,
                                               PacketSink& guest, HandoverReader& handover) {
    if (!group) group = std::make_shared<Switch>(loop);
    auto with = std::static_pointer_cast<Switch>(group);
    auto port = std::make_unique<SwitchPort>(with, with->add(guest));
    if (config.uplink) port->uplink_ = with->add_uplink(TRY(handover.fd()));
    return port;
}

SwitchPort::~SwitchPort() {
    switch_->remove(port_);
    if (uplink_ != 0) switch_->remove(uplink_);
}

}  // namespace caisson::net::backend
