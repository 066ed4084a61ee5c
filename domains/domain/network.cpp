#include "domains/domain/network.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "domains/domain/process.h"

namespace caisson::domain {
namespace {

constexpr const char* sandbox = "uplink";  // the name of the second network, as `ip netns` shows it
constexpr const char* sandbox_link = "uplink0";

// A socket that becomes readable when an interface appears, disappears or changes. What it says is not read: we look.
Result<Fd> link_news() {
    Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_LINK;
    if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return host_fault(errno, "watch network interfaces");
    return socket;
}

Status set_kernel(const std::string& path, const char* value) {
    const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), value, 1) != 1) return host_fault(errno, "write", path);
    return {};
}

bool v6(const std::string& address) { return address.find(':') != std::string::npos; }

Status add_address(const std::string& device, const std::string& address) {
    std::vector<std::string> command{"ip", "address", "replace", address, "dev", device};
    if (v6(address)) command.emplace_back("nodad");  // nobody else is on the link, and waiting costs a second
    return run(command);
}

Status configure(const InterfacePlan& interface) {
    // A link-local address that nobody asked for would only be dropped by a backend that knows our addresses (ip=).
    if (std::none_of(interface.addresses.begin(), interface.addresses.end(), v6))
        (void)set_kernel("/proc/sys/net/ipv6/conf/" + interface.device + "/disable_ipv6", "1");
    TRY(run({"ip", "link", "set", "dev", interface.device, "up"}));
    for (const auto& address : interface.addresses) TRY(add_address(interface.device, address));
    if (interface.gateway.empty()) return {};
    return run({"ip", v6(interface.gateway) ? "-6" : "-4", "route", "replace", "default", "via", interface.gateway,
                "dev", interface.device, "onlink"});
}

Status forward() {
    TRY(set_kernel("/proc/sys/net/ipv4/ip_forward", "1"));
    (void)set_kernel("/proc/sys/net/ipv6/conf/all/forwarding", "1");  // a kernel without IPv6 has no such file
    return {};
}

// The outside world as a namespace of its own: a veth pair, our end configured as an interface of the plan would be.
Status make_sandbox(const Plan& plan) {
    TRY(run({"ip", "netns", "add", sandbox}));
    TRY(run({"ip", "link", "add", sandbox_link, "type", "veth", "peer", "name", "eth0", "netns", sandbox}));
    TRY(run({"ip", "-n", sandbox, "address", "add", plan.uplink_peer, "dev", "eth0"}));
    TRY(run({"ip", "-n", sandbox, "link", "set", "dev", "lo", "up"}));
    TRY(run({"ip", "-n", sandbox, "link", "set", "dev", "eth0", "up"}));
    TRY(configure({.device = sandbox_link, .addresses = {plan.uplink_address}, .gateway = plan.uplink_gateway}));
    if (plan.uplink_run.empty()) return {};
    auto started = spawn({"nsenter", std::string("--net=/run/netns/") + sandbox, "/bin/sh", "-c", plan.uplink_run});
    if (!started) return std::unexpected(started.error());
    return {};
}

}  // namespace

Result<Network> Network::set_up(const Plan& plan, Log& log) {
    Network network(plan, log, TRY(link_news()));
    if (plan.forward) network.check(forward());
    if (!plan.nftables.empty()) network.check(run({"nft", "-f", "-"}, plan.nftables));
    if (!plan.uplink_peer.empty()) network.check(make_sandbox(plan));
    network.refresh();
    return network;
}

void Network::check(const Status& done) {
    if (!done) log_->peer(done.error());
}

void Network::refresh() {
    std::array<char, 8192> news;
    for (ssize_t got = 1; got > 0 || (got < 0 && errno == ENOBUFS);)
        got = ::recv(links_.get(), news.data(), news.size(), MSG_TRUNC);
    for (const auto& interface : plan_->interfaces) {
        const unsigned index = ::if_nametoindex(interface.device.c_str());
        unsigned& known = configured_[interface.device];
        if (index != 0 && index != known) check(configure(interface));
        known = index;
    }
}

bool Network::complete() const {
    for (const auto& [device, index] : configured_)
        if (index == 0) return false;
    return true;
}

std::string Network::missing() const {
    std::string absent, present;
    for (const auto& [device, index] : configured_)
        if (index == 0) absent += (absent.empty() ? "" : ", ") + device;
    if (absent.empty()) return {};
    const std::unique_ptr<struct if_nameindex, void (*)(struct if_nameindex*)> all(::if_nameindex(),
                                                                                   ::if_freenameindex);
    for (const auto* one = all.get(); one != nullptr && one->if_index != 0; ++one)
        present += (present.empty() ? "" : ", ") + escaped(one->if_name);
    return "no interface " + absent + " to configure (there is " + present + "): it will be when it appears";
}

}  // namespace caisson::domain
