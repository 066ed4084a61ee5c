// The event channels of all domains, with Xen's semantics (xen/event_channel.h): a port is unbound for one peer, or
// bound to exactly one port of it. An event is a byte in a pipe; the pipes live as long as one of the two ports.
//
// Closing a port leaves its peer's unbound again, for the same peer to bind anew: the peer's descriptors stay good. In
// between the peer sees POLLHUP, and EPIPE when it notifies.
#pragma once

#include <map>

#include "domains/hypervisor/descriptors.h"
#include "domains/hypervisor/identity.h"
#include "domains/hypervisor/limits.h"

namespace caisson::hypervisor {

class Events {
  public:
    Events(const OwnDescriptors& descriptors, const Limits& limits) : descriptors_(descriptors), limits_(limits) {}

    void add(DomainKey domain) { ports_.try_emplace(domain); }
    void remove(DomainKey domain);                           // dead: all its ports close
    void remove(ConnectionId connection, DomainKey domain);  // closed: the ports made through it close

    struct End {
        Port port;
        Fd wait, notify;
    };
    Result<End> allocate_unbound(ConnectionId owner, DomainKey self, DomainKey peer);
    // One event is pending on our side afterwards; the peer, whose port was there before, hears nothing.
    Result<End> bind_interdomain(ConnectionId owner, DomainKey self, DomainKey peer, Port remote);
    Status close(DomainKey self, Port port);

    std::uint32_t ports(DomainKey domain) const;
    std::size_t ports() const { return total_; }  // of all domains
    struct State {
        DomainKey peer;
        Port remote;  // raw 0: unbound
    };
    const State* state(DomainKey domain, Port port) const;

  private:
    // Two ends of the two pipes: what the owner of a port reads, and what it writes.
    struct Ends {
        Fd inbox, outbox;
    };
    struct Record : State {
        ConnectionId owner;
        Ends own;
        Ends spare;  // the peer's, while nobody is bound for the first time
    };
    using Ports = std::map<Port, Record>;

    Result<Port> free_port(const Ports& ports) const;
    Result<Ends> hand_out(const Ends& kept) const;
    void close(Ports& ports, Ports::iterator record);

    const OwnDescriptors& descriptors_;
    const Limits& limits_;
    std::map<DomainKey, Ports> ports_;
    std::size_t total_ = 0;
};

}  // namespace caisson::hypervisor
