// What each message of ring/local/wire.h does. No socket is read or written here: the broker brings bytes and
// descriptors and takes the answer away, and so does the fuzzer.
//
// A connection belongs to one domain for its whole life: the one whose socket accepted it. A restricted one has only
// the grant calls, with the peers it was made for.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "domains/hypervisor/events.h"
#include "domains/hypervisor/grants.h"
#include "ring/local/message.h"

namespace caisson::hypervisor {

struct NewDomain {
    DomainKey key;
    Fd hypervisor, xenstored;  // listening
    Fd process;                // pidfd of its PID 1, if there is one
};

struct Answer {
    std::vector<std::byte> bytes;  // empty: the sender broke the rules, its connection is to be dropped
    std::vector<Fd> descriptors;

    // What the broker has to do before it sends the answer.
    std::optional<NewDomain> created;
    std::optional<DomainKey> destroyed;
    struct NewConnection {
        ConnectionId id;
        Fd socket;
    };
    std::optional<NewConnection> restricted;
    // What is done instead when its descriptors cannot be sent: as if it had not been asked for.
    std::function<void()> undo;
};

class Hypercalls {
  public:
    Hypercalls(OwnDescriptors descriptors, const Limits& limits);
    Hypercalls(const Hypercalls&) = delete;
    Hypercalls& operator=(const Hypercalls&) = delete;

    // ENOSPC: the domain has too many already.
    Result<ConnectionId> connect(DomainKey domain);
    void disconnect(ConnectionId connection);

    // The answer `to` what could not be carried out after all.
    static Answer failed(const Answer& to, const Error& error);
    Answer handle(ConnectionId from, std::span<const std::byte> message, std::vector<Fd> descriptors);

    // The domain will die, but its processes may still run: no new connection, nothing new granted to it.
    void dying(DomainKey domain);
    // It is dead: everything it had is released. Twice is fine.
    void release(DomainKey domain);
    bool alive(DomainKey domain) const;  // created and not released; a dying domain still is

    std::optional<DomainKey> current(DomainId domain) const;
    const Grants& grants() const { return grants_; }
    const Events& events() const { return events_; }

  private:
    struct Domain {
        DomainKey key;
        bool dying = false;
        std::uint32_t connections = 0;
    };
    struct Connection {
        DomainKey domain;
        std::optional<std::set<DomainKey>> only;  // the peers of a restricted one
    };
    struct Call;

    Answer dispatch(Call& call);
    template <class Message>
    Answer with(Call& call, Answer (Hypercalls::*method)(Call&, const Message&));
    Result<DomainKey> peer(const Call& call, std::uint16_t id) const;
    Status room_for_descriptors(DomainKey domain) const;
    Result<DomainKey> add_domain();

    Answer hello(Call& call, const local::HelloRequest& request);
    Answer share(Call& call, const local::ShareRequest& request);
    Answer activate(Call& call, const local::RefRequest& request);
    Answer reclaim(Call& call, const local::RefRequest& request);
    Answer end(Call& call, const local::RefRequest& request);
    Answer map(Call& call, const local::MapRequest& request);
    Answer unmap(Call& call, const local::UnmapRequest& request);
    Answer fetch(Call& call, const local::FetchRequest& request);
    Answer status(Call& call, const local::PeerRequest& request);
    Answer allocate_unbound(Call& call, const local::PeerRequest& request);
    Answer bind_interdomain(Call& call, const local::BindRequest& request);
    Answer opened(Call& call, Result<Events::End> end);
    Answer close_port(Call& call, const local::PortRequest& request);
    Answer restrict_to(Call& call, const local::RestrictRequest& request);
    Answer create_domain(Call& call, const local::CreateRequest& request);
    Answer destroy_domain(Call& call, const local::DestroyRequest& request);
    Answer list_domains(Call& call, const local::ListRequest& request);

    OwnDescriptors descriptors_;
    Limits limits_;
    Grants grants_;
    Events events_;
    std::map<DomainId, Domain> domains_;
    std::map<ConnectionId, Connection> connections_;
    std::uint64_t next_connection_ = 1;
    std::uint32_t next_generation_ = 1;
    std::uint16_t next_domain_ = 1;
};

}  // namespace caisson::hypervisor
