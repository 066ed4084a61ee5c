#include "backends/net/tap_interface.h"

#include <linux/if_bridge.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "ring/kernel_setting.h"

namespace caisson::net::backend {

namespace {

ifreq request_for(std::string_view name) {
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1));
    return request;
}

Result<Fd> configuration_socket(int family = AF_INET) {
    Fd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return host_fault(errno, "socket for interface configuration");
    return fd;
}

Status configure(unsigned long call, ifreq& request, const char* what) {
    const Fd fd = TRY(configuration_socket());
    if (::ioctl(fd.get(), call, &request) < 0) return host_fault(errno, what, request.ifr_name);
    return {};
}

// By netlink: the ioctl SIOCSIFTXQLEN asks for the machine's CAP_NET_ADMIN, this only for the namespace's owner.
Status set_queue_length(const std::string& interface, std::uint32_t packets) {
    struct {
        nlmsghdr head;
        ifinfomsg link;
        rtattr attribute;
        std::uint32_t length;
    } message{};
    message.head.nlmsg_len = sizeof message;
    message.head.nlmsg_type = RTM_NEWLINK;
    message.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message.link.ifi_index = static_cast<int>(::if_nametoindex(interface.c_str()));
    message.attribute.rta_len = RTA_LENGTH(sizeof message.length);
    message.attribute.rta_type = IFLA_TXQLEN;
    message.length = packets;
    const Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd || ::send(fd.get(), &message, sizeof message, 0) < 0)
        return host_fault(errno, "TAP queue length", interface);
    struct {
        nlmsghdr head;
        nlmsgerr error;
        std::byte rest[256];
    } answer{};
    if (::recv(fd.get(), &answer, sizeof answer, 0) < 0) return host_fault(errno, "TAP queue length", interface);
    if (answer.error.error != 0) return host_fault(-answer.error.error, "TAP queue length", interface);
    return {};
}

// The one that Xen's hotplug scripts give every vif: a guest behind a route finds its gateway under the same address
// when the interface has been made again, and a bridge does not take it for its own.
Status set_address(const std::string& interface) {
    constexpr std::array<unsigned char, 6> address{0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    ifreq request = request_for(interface);
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    std::memcpy(request.ifr_hwaddr.sa_data, address.data(), address.size());
    return configure(SIOCSIFHWADDR, request, "set MAC address");
}

sockaddr_in internet(const void* address) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    std::memcpy(&out.sin_addr, address, 4);
    return out;
}

Status add_route(const std::string& interface, const std::array<std::uint8_t, 4>& address) {
    rtentry route{};
    const sockaddr_in target = internet(address.data()), mask = internet("\xff\xff\xff\xff");
    std::memcpy(&route.rt_dst, &target, sizeof target);
    std::memcpy(&route.rt_genmask, &mask, sizeof mask);
    std::string device = interface;
    route.rt_dev = device.data();
    route.rt_flags = RTF_UP | RTF_HOST;
    const Fd fd = TRY(configuration_socket());
    if (::ioctl(fd.get(), SIOCADDRT, &route) < 0 && errno != EEXIST)
        return host_fault(errno, "route to guest", interface);
    return {};
}

Status add_route(const std::string& interface, const std::array<std::uint8_t, 16>& address) {
    in6_rtmsg route{};
    std::memcpy(&route.rtmsg_dst, address.data(), address.size());
    route.rtmsg_dst_len = 128;
    route.rtmsg_metric = 1;
    route.rtmsg_flags = RTF_UP | RTF_HOST;
    route.rtmsg_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    const Fd fd = TRY(configuration_socket(AF_INET6));
    if (::ioctl(fd.get(), SIOCADDRT, &route) < 0 && errno != EEXIST)
        return host_fault(errno, "route to guest", interface);
    return {};
}

Status copy_address(const std::string& from, const std::string& to) {
    ifreq request = request_for(from);
    TRY(configure(SIOCGIFADDR, request, "address of gateway device"));
    const sockaddr address = request.ifr_addr;
    request = request_for(to);
    request.ifr_addr = address;
    TRY(configure(SIOCSIFADDR, request, "set address"));
    const sockaddr_in mask = internet("\xff\xff\xff\xff");
    request = request_for(to);
    std::memcpy(&request.ifr_netmask, &mask, sizeof mask);
    return configure(SIOCSIFNETMASK, request, "set netmask");
}

}  // namespace

bool interface_name_valid(std::string_view name) {
    return !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
           std::ranges::all_of(
               name,
               [](char c) {
                   return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                          c == '_' || c == '-';
               });
}

bool bridge_exists(const std::string& name) {
    // By ioctl, not by /sys: a driver domain's /sys may belong to another network namespace.
    if (!interface_name_valid(name) || ::if_nametoindex(name.c_str()) == 0) return false;
    const auto fd = configuration_socket();
    ifreq request = request_for(name);
    __bridge_info info{};
    unsigned long arguments[4] = {BRCTL_GET_BRIDGE_INFO, reinterpret_cast<unsigned long>(&info), 0, 0};
    request.ifr_data = reinterpret_cast<char*>(arguments);
    return fd && ::ioctl(fd->get(), SIOCDEVPRIVATE, &request) >= 0;
}

Result<Fd> TapInterface::open_queue() const {
    Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return host_fault(errno, "/dev/net/tun (is the module tun loaded?)");
    ifreq request = request_for(name_);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
    if (::ioctl(fd.get(), TUNSETIFF, &request) < 0) return host_fault(errno, "create TAP", name_);
    int header = sizeof(VirtioHeader);
    if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header) < 0) return host_fault(errno, "TAP header size", name_);
    return fd;
}

Result<TapInterface> TapInterface::make(const std::string& name) {
    if (!interface_name_valid(name)) return host_fault(EINVAL, "interface name", name);
    TapInterface tap(name);
    tap.queues_.push_back(TRY(tap.open_queue()));
    TRY(set_address(name));
    TRY(set_queue_length(name, tap_queue_packets));
    return tap;
}

Status TapInterface::set_queues(unsigned count) {
    while (queues_.size() > count) queues_.pop_back();
    while (queues_.size() < count) queues_.push_back(TRY(open_queue()));
    return {};
}

Status TapInterface::set_offloads(const Offloads& guest) {
    unsigned long offload = 0;
    if (guest.csum_ipv4 && guest.csum_ipv6) {
        offload = TUN_F_CSUM;
        if (guest.gso_tcpv4) offload |= TUN_F_TSO4 | TUN_F_TSO_ECN;
        if (guest.gso_tcpv6) offload |= TUN_F_TSO6 | TUN_F_TSO_ECN;
    }
    if (::ioctl(queues_.front().get(), TUNSETOFFLOAD, offload) < 0) return host_fault(errno, "TAP offloads", name_);
    return {};
}

Status TapInterface::set_mtu(std::uint32_t mtu) {
    ifreq request = request_for(name_);
    request.ifr_mtu = static_cast<int>(mtu);
    return configure(SIOCSIFMTU, request, "set MTU");
}

Status TapInterface::join(const std::string& bridge) {
    ifreq request = request_for(bridge);
    request.ifr_ifindex = static_cast<int>(::if_nametoindex(name_.c_str()));
    const Fd fd = TRY(configuration_socket());
    if (::ioctl(fd.get(), SIOCBRADDIF, &request) < 0 && errno != EBUSY) return host_fault(errno, "join bridge", bridge);
    return {};
}

Status TapInterface::route(const GuestAddresses& guest, const std::string& gateway) {
    if (!gateway.empty()) TRY(copy_address(gateway, name_));
    for (unsigned i = 0; i < guest.v4_count; ++i) TRY(add_route(name_, guest.v4[i]));
    for (unsigned i = 0; i < guest.v6_count; ++i) TRY(add_route(name_, guest.v6[i]));
    TRY(write_setting("/proc/sys/net/ipv4/conf/" + name_ + "/proxy_arp", "1"));
    // proxy_delay would make every first packet wait 0.8 s.
    return write_setting("/proc/sys/net/ipv4/neigh/" + name_ + "/proxy_delay", "0");
}

Status TapInterface::up() {
    ifreq request = request_for(name_);
    TRY(configure(SIOCGIFFLAGS, request, "interface flags"));
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    return configure(SIOCSIFFLAGS, request, "interface up");
}

}  // namespace caisson::net::backend
