#include "domains/hypervisor/events.h"

#include <vector>

namespace caisson::hypervisor {

namespace {

struct Pipe {
    Fd read, write;
};

Result<Pipe> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return host_fault(errno, "pipe of an event channel");
    Pipe pipe{Fd(ends[0]), Fd(ends[1])};
    (void)::fcntl(ends[1], F_SETPIPE_SZ, 4096);  // one page: less memory a channel, and one read empties it
    return pipe;
}

// The broker's own description of the pipe: no domain can make this block. A full pipe is a pending event.
void raise(const Fd& outbox) {
    static constexpr char event = 1;
    (void)!::write(outbox.get(), &event, sizeof event);
}

}  // namespace

void Events::remove(DomainKey domain) {
    const auto found = ports_.find(domain);
    if (found == ports_.end()) return;
    while (!found->second.empty()) close(found->second, found->second.begin());
    ports_.erase(found);
}

void Events::remove(ConnectionId connection, DomainKey domain) {
    const auto found = ports_.find(domain);
    if (found == ports_.end()) return;
    for (auto record = found->second.begin(); record != found->second.end();) {
        const auto next = std::next(record);
        if (record->second.owner == connection) close(found->second, record);
        record = next;
    }
}

Result<Events::End> Events::allocate_unbound(ConnectionId owner, DomainKey self, DomainKey peer) {
    Ports& ports = ports_.at(self);
    if (!ports_.contains(peer)) return deny_peer(ESRCH, "no such domain");
    const Port port = TRY(free_port(ports));
    Pipe towards_us = TRY(make_pipe()), towards_peer = TRY(make_pipe());
    Record record;
    record.peer = peer;
    record.owner = owner;
    record.own = {std::move(towards_us.read), std::move(towards_peer.write)};
    record.spare = {std::move(towards_peer.read), std::move(towards_us.write)};
    Ends given = TRY(hand_out(record.own));
    ports.emplace(port, std::move(record));
    ++total_;
    return End{port, std::move(given.inbox), std::move(given.outbox)};
}

Result<Events::End> Events::bind_interdomain(ConnectionId owner, DomainKey self, DomainKey peer, Port remote) {
    Ports& ports = ports_.at(self);
    const auto theirs = ports_.find(peer);
    if (theirs == ports_.end()) return deny_peer(ESRCH, "no such domain");
    const auto found = theirs->second.find(remote);
    if (found == theirs->second.end() || found->second.peer != self || found->second.remote.raw != 0)
        return deny_peer(EINVAL, "the port is not unbound for us", remote.raw);
    Record& other = found->second;
    const Port port = TRY(free_port(ports));

    // Everything that can fail comes before the first change, so an error undoes nothing (XSA-496).
    Ends own;
    if (!other.spare.inbox) {  // bound before, then closed by us: our ends come back from those that the peer kept
        own.outbox = TRY(descriptors_.reopen(other.own.inbox.get(), O_WRONLY));
        own.inbox = TRY(descriptors_.reopen(other.own.outbox.get(), O_RDONLY));
    }
    Ends given = TRY(hand_out(other.spare.inbox ? other.spare : own));

    if (other.spare.inbox) own = std::move(other.spare);
    other.remote = port;
    Record& record = ports[port];
    ++total_;
    record.peer = peer;
    record.remote = remote;
    record.owner = owner;
    record.own = std::move(own);
    raise(other.own.outbox);  // towards us only, as Xen does: notifies of an unbound port were lost
    return End{port, std::move(given.inbox), std::move(given.outbox)};
}

Status Events::close(DomainKey self, Port port) {
    Ports& ports = ports_.at(self);
    const auto found = ports.find(port);
    if (found == ports.end()) return deny(EINVAL, "no such port of ours");
    close(ports, found);
    return {};
}

// The peer keeps its ends, and the broker with it: they are what a new bind is made from.
void Events::close(Ports& ports, Ports::iterator record) {
    const State state = static_cast<const State&>(record->second);  // the rest goes
    ports.erase(record);
    --total_;
    if (state.remote.raw == 0) return;
    const auto theirs = ports_.find(state.peer);
    if (theirs == ports_.end()) return;
    const auto other = theirs->second.find(state.remote);
    if (other != theirs->second.end()) other->second.remote = Port{};
}

Result<Port> Events::free_port(const Ports& ports) const {
    if (ports.size() >= limits_.ports) return deny(ENOSPC, "quota of event channels");
    std::uint32_t port = 1;  // 0 is never valid
    for (const auto& [used, record] : ports) {
        if (used.raw != port) break;
        ++port;
    }
    return Port(port);
}

Result<Events::Ends> Events::hand_out(const Ends& kept) const {
    return Ends{TRY(descriptors_.reopen(kept.inbox.get(), O_RDONLY)),
                TRY(descriptors_.reopen(kept.outbox.get(), O_WRONLY))};
}

std::uint32_t Events::ports(DomainKey domain) const {
    const auto found = ports_.find(domain);
    return found == ports_.end() ? 0 : static_cast<std::uint32_t>(found->second.size());
}

const Events::State* Events::state(DomainKey domain, Port port) const {
    const auto found = ports_.find(domain);
    if (found == ports_.end()) return nullptr;
    const auto record = found->second.find(port);
    return record == found->second.end() ? nullptr : &record->second;
}

}  // namespace caisson::hypervisor
