#include "domains/service_vm/links.h"

#include <arpa/inet.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "ring/kernel_setting.h"

namespace caisson::service_vm {
namespace {

Status ask(int family, unsigned long call, void* request, const char* what, const std::string& whom) {
    const Fd socket(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket || ::ioctl(socket.get(), call, request) < 0) return host_fault(errno, what, whom);
    return {};
}

ifreq request_for(const std::string& name) {
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
    return request;
}

sockaddr internet(in_addr address) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_addr = address;
    sockaddr out{};
    std::memcpy(&out, &in, sizeof out);
    return out;
}

int index_of(const std::string& name) { return static_cast<int>(::if_nametoindex(name.c_str())); }

Status add_v4(const std::string& name, const Address& address) {
    ifreq request = request_for(name);
    in_addr host{};
    ::inet_pton(AF_INET, address.host.c_str(), &host);
    request.ifr_addr = internet(host);
    TRY(ask(AF_INET, SIOCSIFADDR, &request, "address of", name));
    request.ifr_netmask = internet({htonl(address.bits == 0 ? 0 : ~std::uint32_t{0} << (32 - address.bits))});
    return ask(AF_INET, SIOCSIFNETMASK, &request, "netmask of", name);
}

Status add_v6(const std::string& name, const Address& address) {
    in6_ifreq request{};
    ::inet_pton(AF_INET6, address.host.c_str(), &request.ifr6_addr);
    request.ifr6_prefixlen = address.bits;
    request.ifr6_ifindex = index_of(name);
    const Status done = ask(AF_INET6, SIOCSIFADDR, &request, "address of", name);
    return done || done.error().err == EEXIST ? Status{} : done;
}

Status route_v4(const std::string& name, const std::string& gateway) {
    rtentry route{};
    in_addr host{};
    ::inet_pton(AF_INET, gateway.c_str(), &host);
    route.rt_dst = route.rt_genmask = internet({INADDR_ANY});
    route.rt_gateway = internet(host);
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    std::string device = name;
    route.rt_dev = device.data();
    const Status done = ask(AF_INET, SIOCADDRT, &route, "default route through", name);
    return done || done.error().err == EEXIST ? Status{} : done;
}

Status route_v6(const std::string& name, const std::string& gateway) {
    in6_rtmsg route{};
    ::inet_pton(AF_INET6, gateway.c_str(), &route.rtmsg_gateway);
    route.rtmsg_flags = RTF_UP | RTF_GATEWAY;
    route.rtmsg_metric = 1;
    route.rtmsg_ifindex = index_of(name);
    const Status done = ask(AF_INET6, SIOCADDRT, &route, "default route through", name);
    return done || done.error().err == EEXIST ? Status{} : done;
}

Status up(const std::string& name) {
    ifreq request = request_for(name);
    TRY(ask(AF_INET, SIOCGIFFLAGS, &request, "flags of", name));
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    return ask(AF_INET, SIOCSIFFLAGS, &request, "start of", name);
}

Status join(const std::string& name, const std::string& bridge) {
    ifreq request = request_for(bridge);
    request.ifr_ifindex = index_of(name);
    const Status done = ask(AF_INET, SIOCBRADDIF, &request, "join of a bridge by", name);
    return done || done.error().err == EBUSY ? Status{} : done;  // it is in one already
}

Status configure(const Interface& interface) {
    // Who asked for no IPv6 address shall not be reached by one that the kernel makes up.
    if (std::ranges::none_of(interface.addresses, &Address::v6))
        (void)write_setting("/proc/sys/net/ipv6/conf/" + interface.name + "/disable_ipv6", "1");
    TRY(up(interface.name));
    for (const auto& address : interface.addresses)
        TRY(address.v6() ? add_v6(interface.name, address) : add_v4(interface.name, address));
    if (!interface.master.empty()) TRY(join(interface.name, interface.master));
    if (interface.gateway.empty()) return {};
    return (interface.gateway.find(':') != std::string::npos ? route_v6 : route_v4)(interface.name, interface.gateway);
}

}  // namespace

Result<Links> Links::set_up(const Recipe& recipe) {
    Links links(recipe, TRY(domain::LinkNews::open()));
    TRY(up("lo"));
    for (const auto& one : recipe.interfaces) {
        std::string name = one.name;
        if (one.bridge) TRY(ask(AF_INET, SIOCBRADDBR, name.data(), "making of bridge", name));
    }
    if (recipe.forward) {
        TRY(write_setting("/proc/sys/net/ipv4/ip_forward", "1"));
        (void)write_setting("/proc/sys/net/ipv6/conf/all/forwarding", "1");  // a kernel without IPv6 has no such file
    }
    return links;
}

void Links::refresh(Log& log) {
    news_.drain();
    for (const auto& interface : recipe_->interfaces) {
        const unsigned index = ::if_nametoindex(interface.name.c_str());
        unsigned& known = configured_[interface.name];
        if (index != 0 && index != known)
            if (const Status done = configure(interface); !done) log.peer(done.error());
        known = index;
    }
}

}  // namespace caisson::service_vm
