#include "ring/local/control.h"

#include <sys/stat.h>
#include <sys/un.h>

namespace caisson::local {

Result<Control> Control::open(const std::string& dom0_hypervisor_socket) {
    Control control(TRY(Connection::open(dom0_hypervisor_socket)));
    const auto answer = TRY((control.connection_.call<HelloReply>(
        Op::hello, HelloRequest{.head = {}, .version = wire_version, .successor = 0}, 0)));
    if (DomainId(answer.body.domain) != control_domain) return host_fault(EPERM, "the socket is not Dom0's");
    return control;
}

Result<CreatedDomain> Control::create_domain(int hypervisor_listener, int xenstored_listener, int process) {
    const int descriptors[] = {hypervisor_listener, xenstored_listener, process};
    const auto answer = TRY((connection_.call<DomainReply>(
        Op::create_domain, CreateRequest{.head = {}, .pidfd = process >= 0 ? 1U : 0U, .zero = 0}, 0,
        std::span(descriptors).first(process >= 0 ? 3 : 2))));
    return CreatedDomain{DomainId(answer.body.domain), answer.body.generation};
}

Status Control::destroy_domain(DomainId domain, std::uint32_t generation) {
    TRY((connection_.call<Reply>(
        Op::destroy_domain, DestroyRequest{.head = {}, .domain = domain.raw, .zero = 0, .generation = generation}, 0)));
    return {};
}

Result<std::vector<DomainInfo>> Control::list_domains() {
    std::vector<DomainInfo> domains;
    std::uint32_t from = 0;
    while (true) {
        const auto answer =
            TRY((connection_.call<ListReply>(Op::list_domains, ListRequest{.head = {}, .from = from, .zero = 0}, 0)));
        const std::uint32_t count = std::min<std::uint32_t>(answer.body.count, domains_per_list);
        for (const ListedDomain& domain : std::span(answer.body.domains).first(count))
            domains.push_back({.id = DomainId(domain.domain),
                               .generation = domain.generation,
                               .dying = domain.dying != 0,
                               .grants = domain.grants,
                               .regions = domain.regions,
                               .mappings = domain.mappings,
                               .ports = domain.ports,
                               .connections = domain.connections,
                               .quarantined = domain.quarantined});
        if (count < domains_per_list) return domains;
        from = std::uint32_t{domains.back().id.raw} + 1;
    }
}

Result<Fd> listen_at(const std::string& path, int type) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return host_fault(ENAMETOOLONG, "listen at", path);
    path.copy(address.sun_path, path.size());
    Fd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return host_fault(errno, "socket");
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return host_fault(errno, "replace", path);
    // The mode of the socket's file is set before the bind: there is no moment in which others can connect.
    (void)::fchmod(socket.get(), 0600);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return host_fault(errno, "listen at", path);
    if (::chmod(path.c_str(), 0600) != 0 || ::listen(socket.get(), 128) != 0)
        return host_fault(errno, "listen at", path);
    return socket;
}

}  // namespace caisson::local
