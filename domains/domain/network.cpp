#include "domains/domain/network.h"

#include <net/if.h>

#include <algorithm>
#include <memory>

#include "domains/domain/process.h"
#include "ring/kernel_setting.h"

namespace caisson::domain {
namespace {

constexpr const char* sandbox = "uplink";  // the name of the second network, as `ip netns` shows it
constexpr const char* sandbox_link = "uplink0";

bool v6(const std::string& address) { return address.find(':') != std::string::npos; }

Status add_address(const std::string& device, const std::string& address) {
    std::vector<std::string> command{"ip", "address", "replace", address, "dev", device};
    if (v6(address)) command.emplace_back("nodad");  // nobody else is on the link, and waiting costs a second
    return run(command);
}

Status configure(const InterfacePlan& interface) {
    // A link-local address that nobody asked for would only be dropped by a backend that knows our addresses (ip=).
    if (std::none_of(interface.addresses.begin(), interface.addresses.end(), v6))
        (void)write_setting("/proc/sys/net/ipv6/conf/" + interface.device + "/disable_ipv6", "1");
    TRY(run({"ip", "link", "set", "dev", interface.device, "up"}));
    for (const auto& address : interface.addresses) TRY(add_address(interface.device, address));
    if (interface.gateway.empty()) return {};
    return run({"ip", v6(interface.gateway) ? "-6" : "-4", "route", "replace", "default", "via", interface.gateway,
                "dev", interface.device, "onlink"});
}

Status forward() {
    TRY(write_setting("/proc/sys/net/ipv4/ip_forward", "1"));
    (void)write_setting("/proc/sys/net/ipv6/conf/all/forwarding", "1");  // a kernel without IPv6 has no such file
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
    Network network(plan, log, TRY(LinkNews::open()));
    const Status rules = plan.nftables.empty() ? Status{} : run({"nft", "-f", "-"}, plan.nftables);
    network.check(rules);
    if (plan.forward && rules) network.check(forward());
    if (plan.forward && !rules) log.say("without its firewall rules this domain forwards nothing");
    if (!plan.uplink_peer.empty()) network.check(make_sandbox(plan));
    network.refresh();
    return network;
}

void Network::check(const Status& done) {
    if (!done) log_->peer(done.error());
}

void Network::refresh() {
    news_.drain();
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
