#include <sys/socket.h>

#include "domains/hypervisor/hypercalls_call.h"

namespace caisson::hypervisor {

Answer Hypercalls::allocate_unbound(Call& call, const local::PeerRequest& request) {
    const auto to = peer(call, request.peer);
    if (!to) return call.refused(to.error());
    if (const Status room = room_for_descriptors(call.self); !room) return call.refused(room.error());
    return opened(call, events_.allocate_unbound(call.from, call.self, *to));
}

Answer Hypercalls::bind_interdomain(Call& call, const local::BindRequest& request) {
    const auto to = peer(call, request.peer);
    if (!to) return call.refused(to.error());
    if (const Status room = room_for_descriptors(call.self); !room) return call.refused(room.error());
    return opened(call, events_.bind_interdomain(call.from, call.self, *to, Port(request.port)));
}

Answer Hypercalls::opened(Call& call, Result<Events::End> end) {
    if (!end) return call.refused(end.error());
    Answer answer = call.done(local::PortReply{.head = {}, .port = end->port.raw, .zero = 0}, std::move(end->wait),
                              std::move(end->notify));
    answer.undo = [this, self = call.self, port = end->port] { (void)events_.close(self, port); };
    return answer;
}

Answer Hypercalls::close_port(Call& call, const local::PortRequest& request) {
    const auto done = events_.close(call.self, Port(request.port));
    return done ? call.done() : call.refused(done.error());
}

Answer Hypercalls::restrict_to(Call& call, const local::RestrictRequest& request) {
    if (request.count == 0 || request.count > local::peers_per_restriction)
        return call.refused(deny(EINVAL, "peers of one restriction"));
    std::set<DomainKey> peers;
    for (std::uint16_t id : std::span(request.peers).first(request.count)) {
        const auto key = peer(call, id);
        if (!key) return call.refused(key.error());
        peers.insert(*key);
    }
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return call.refused(host_fault(errno, "socketpair"));
    Fd ours(ends[0]), theirs(ends[1]);
    const auto id = connect(call.self);
    if (!id) return call.refused(id.error());
    connections_.at(*id).only = std::move(peers);
    Answer answer = call.done(local::Reply{}, std::move(theirs));
    answer.restricted = {.id = *id, .socket = std::move(ours)};
    answer.undo = [this, connection = *id] { disconnect(connection); };
    return answer;
}

}  // namespace caisson::hypervisor
