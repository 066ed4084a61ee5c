#include "domains/hypervisor/hypercalls_call.h"

namespace caisson::hypervisor {

// Ids go upwards and are used again only after the highest: who remembers a number meets its new owner as late as
// possible, and then the generation differs.
Result<DomainKey> Hypercalls::add_domain() {
    if (domains_.size() >= limits_.domains) return deny(ENOSPC, "quota of domains");
    while (domains_.contains(DomainId(next_domain_)))
        next_domain_ = next_domain_ + 1 < first_reserved_domid ? static_cast<std::uint16_t>(next_domain_ + 1) : 1;
    const DomainKey key{DomainId(next_domain_), next_generation_++};
    next_domain_ = next_domain_ + 1 < first_reserved_domid ? static_cast<std::uint16_t>(next_domain_ + 1) : 1;
    domains_[key.id] = {.key = key};
    grants_.add(key);
    events_.add(key);
    return key;
}

Answer Hypercalls::create_domain(Call& call, const local::CreateRequest& request) {
    const std::size_t expected = request.pidfd != 0 ? 3 : 2;
    if (call.descriptors.size() != expected) return call.refused(deny(EINVAL, "descriptors of create_domain"));
    const auto key = add_domain();
    if (!key) return call.refused(key.error());
    Answer answer =
        call.done(local::DomainReply{.head = {}, .domain = key->id.raw, .zero = 0, .generation = key->generation});
    answer.created = {.key = *key,
                      .hypervisor = std::move(call.descriptors[0]),
                      .xenstored = std::move(call.descriptors[1]),
                      .process = expected == 3 ? std::move(call.descriptors[2]) : Fd()};
    return answer;
}

Answer Hypercalls::destroy_domain(Call& call, const local::DestroyRequest& request) {
    const auto key = current(DomainId(request.domain));
    if (!key || (request.generation != 0 && request.generation != key->generation))
        return call.refused(deny(ESRCH, "no such domain"));
    if (key->id == control_domain) return call.refused(deny(EPERM, "Dom0 cannot be destroyed"));
    Answer answer = call.done();
    answer.destroyed = *key;
    return answer;
}

Answer Hypercalls::list_domains(Call& call, const local::ListRequest& request) {
    local::ListReply reply{};
    for (const auto& [id, domain] : domains_) {
        if (id.raw < request.from || reply.count == local::domains_per_list) continue;
        const GrantUse use = grants_.use(domain.key);
        reply.domains[reply.count++] = {.domain = id.raw,
                                        .dying = static_cast<std::uint16_t>(domain.dying),
                                        .generation = domain.key.generation,
                                        .grants = use.grants,
                                        .regions = use.regions,
                                        .mappings = use.mappings,
                                        .ports = events_.ports(domain.key),
                                        .connections = domain.connections,
                                        .quarantined = use.quarantined};
    }
    return call.done(reply);
}

void Hypercalls::dying(DomainKey domain) {
    if (alive(domain)) domains_.at(domain.id).dying = true;
}

void Hypercalls::release(DomainKey domain) {
    if (!alive(domain)) return;
    for (auto connection = connections_.begin(); connection != connections_.end();)
        connection = connection->second.domain == domain ? connections_.erase(connection) : std::next(connection);
    grants_.remove(domain);
    events_.remove(domain);
    domains_.erase(domain.id);
}

}  // namespace caisson::hypervisor
