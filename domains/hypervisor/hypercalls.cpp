// Connections and dispatch. The calls themselves are in hypercalls_grants.cpp, _events.cpp and _domains.cpp.
#include "domains/hypervisor/hypercalls.h"

#include "domains/hypervisor/hypercalls_call.h"

namespace caisson::hypervisor {

Hypercalls::Hypercalls(OwnDescriptors descriptors, const Limits& limits)
    : descriptors_(std::move(descriptors)),
      limits_(limits),
      grants_(descriptors_, limits_),
      events_(descriptors_, limits_) {
    const DomainKey dom0{control_domain, next_generation_++};
    domains_[control_domain] = {.key = dom0};
    grants_.add(dom0);
    events_.add(dom0);
}

Result<ConnectionId> Hypercalls::connect(DomainKey domain) {
    const auto found = domains_.find(domain.id);
    if (found == domains_.end() || found->second.key != domain || found->second.dying)
        return deny(ESRCH, "no such domain");
    if (found->second.connections >= limits_.connections) return deny(ENOSPC, "quota of connections");
    TRY(room_for_descriptors(domain));
    ++found->second.connections;
    const ConnectionId id(next_connection_++);
    connections_[id] = {.domain = domain, .only = std::nullopt};
    grants_.add(id, domain);
    return id;
}

void Hypercalls::disconnect(ConnectionId connection) {
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return;
    const DomainKey domain = found->second.domain;
    connections_.erase(found);
    grants_.remove(connection);
    events_.remove(connection, domain);
    if (const auto owner = domains_.find(domain.id); owner != domains_.end() && owner->second.key == domain)
        --owner->second.connections;
}

Answer Hypercalls::handle(ConnectionId from, std::span<const std::byte> message, std::vector<Fd> descriptors) {
    const auto connection = connections_.find(from);
    if (connection == connections_.end() || message.size() < sizeof(local::Request)) return {};
    local::Request head;
    std::memcpy(&head, message.data(), sizeof head);
    // Descriptors where none belong: closed with `descriptors`, and no more from this one (attack: fd flooding).
    const bool creates = static_cast<local::Op>(head.op) == local::Op::create_domain;
    if (!descriptors.empty() && !(creates && connection->second.domain.id == control_domain)) return {};
    Call call{.from = from,
              .self = connection->second.domain,
              .only = connection->second.only ? &*connection->second.only : nullptr,
              .head = head,
              .message = message,
              .descriptors = std::move(descriptors)};
    return dispatch(call);
}

template <class Message>
Answer Hypercalls::with(Call& call, Answer (Hypercalls::*method)(Call&, const Message&)) {
    const auto message = local::as<Message>(call.message);
    if (!message) return call.refused(deny(EINVAL, "a message of another size"));
    return (this->*method)(call, *message);
}

Answer Hypercalls::dispatch(Call& call) {
    using enum local::Op;
    const auto op = static_cast<local::Op>(call.head.op);
    const bool grant_call = op >= hello && op <= status;
    if (call.only != nullptr && !grant_call) return call.refused(deny(EPERM, "not on a restricted connection"));
    const bool control_call = op >= create_domain && op <= list_domains;
    if (control_call && call.self.id != control_domain) return call.refused(deny(EPERM, "for Dom0 only"));
    switch (op) {
        case hello: return with(call, &Hypercalls::hello);
        case share: return with(call, &Hypercalls::share);
        case activate: return with(call, &Hypercalls::activate);
        case reclaim: return with(call, &Hypercalls::reclaim);
        case end: return with(call, &Hypercalls::end);
        case map: return with(call, &Hypercalls::map);
        case unmap: return with(call, &Hypercalls::unmap);
        case fetch: return with(call, &Hypercalls::fetch);
        case status: return with(call, &Hypercalls::status);
        case allocate_unbound: return with(call, &Hypercalls::allocate_unbound);
        case bind_interdomain: return with(call, &Hypercalls::bind_interdomain);
        case close_port: return with(call, &Hypercalls::close_port);
        case restrict_to: return with(call, &Hypercalls::restrict_to);
        case create_domain: return with(call, &Hypercalls::create_domain);
        case destroy_domain: return with(call, &Hypercalls::destroy_domain);
        case list_domains: return with(call, &Hypercalls::list_domains);
    }
    return call.refused(deny(ENOSYS, "no such call"));
}

Answer Hypercalls::hello(Call& call, const local::HelloRequest& request) {
    if (request.version != local::wire_version)
        return call.refused(deny(EPROTONOSUPPORT, "another version of the port's protocol"));
    if (call.only != nullptr && request.successor != 0) grants_.forget_mappings(call.from);
    return call.done(local::HelloReply{.head = {},
                                       .domain = call.self.id.raw,
                                       .restricted = static_cast<std::uint16_t>(call.only != nullptr),
                                       .generation = call.self.generation,
                                       .max_pages_per_share = limits_.pages_per_share,
                                       .max_grants = limits_.grants});
}

// A domain that lives and, on a restricted connection, is one of its peers.
Result<DomainKey> Hypercalls::peer(const Call& call, std::uint16_t id) const {
    const auto found = domains_.find(DomainId(id));
    if (found == domains_.end()) return deny_peer(ESRCH, "no such domain", id);
    if (call.only != nullptr && !call.only->contains(found->second.key))
        return deny_peer(EPERM, "not a peer of this restricted connection", id);
    return found->second.key;
}

Status Hypercalls::room_for_descriptors(DomainKey domain) const {
    const std::size_t all = grants_.regions() + 2 * events_.ports() + connections_.size();
    if (all < limits_.descriptors / 4 * 3) return {};
    const std::size_t own =
        grants_.use(domain).regions + std::size_t{2} * events_.ports(domain) + domains_.at(domain.id).connections;
    const std::size_t share = limits_.descriptors / 4 / domains_.size();
    if (all < limits_.descriptors && own < share) return {};
    return deny(ENOSPC, "the hypervisor's descriptors");
}

Answer Hypercalls::failed(const Answer& to, const Error& error) {
    local::Reply head;
    if (to.bytes.size() < sizeof head) return {};
    std::memcpy(&head, to.bytes.data(), sizeof head);
    const Call call{.from = {},
                    .self = {},
                    .only = nullptr,
                    .head = {.op = 0, .zero = 0, .id = head.id},
                    .message = {},
                    .descriptors = {}};
    return call.refused(error);
}

std::optional<DomainKey> Hypercalls::current(DomainId domain) const {
    const auto found = domains_.find(domain);
    if (found == domains_.end()) return std::nullopt;
    return found->second.key;
}

bool Hypercalls::alive(DomainKey domain) const { return current(domain.id) == domain; }

}  // namespace caisson::hypervisor
