// The TAP attachment, in a network namespace of its own.
#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <catch2/catch.hpp>

#include <cstring>

#include "frontends/net/attachment_tap.h"

using namespace caisson;
using namespace caisson::net::frontend;

namespace {

constexpr int cannot = 77;

// Runs `body` in a child that is root of its own network namespace; `body` returns 0, or the number of what failed.
int in_own_network(int (*body)()) {
    const pid_t child = ::fork();
    if (child == 0) {
        if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) ::_exit(cannot);
        if (::access("/dev/net/tun", R_OK | W_OK) != 0) ::_exit(cannot);
        ::_exit(body());
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

ifreq asked(int socket, unsigned long what, ifreq request = {}) {
    std::strcpy(request.ifr_name, "eth0");
    if (::ioctl(socket, what, &request) != 0) std::memset(&request, 0xEE, sizeof request);
    return request;
}

bool carrier_up(int socket) {
    ethtool_value link{.cmd = ETHTOOL_GLINK, .data = 0};
    ifreq request{};
    request.ifr_data = reinterpret_cast<char*>(&link);
    asked(socket, SIOCETHTOOL, request);
    return link.data == 1;
}

int tap_is_what_it_should_be() {
    const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(0x88B5)));
    const net::Mac mac{{0x00, 0x16, 0x3E, 1, 2, 3}};
    auto tap = open_tap({.name = "eth0", .mac = mac});
    if (!tap) return std::fprintf(stderr, "%s\n", tap.error().message().c_str()), 1;
    if (std::memcmp(asked(socket.get(), SIOCGIFHWADDR).ifr_hwaddr.sa_data, mac.bytes.data(), 6) != 0) return 2;
    if (!(*tap)->configure(
            {.scatter_gather = true, .gso_tcpv4 = true, .gso_tcpv6 = true, .csum_ipv4 = true, .csum_ipv6 = true}, 9000))
        return 3;
    if (asked(socket.get(), SIOCGIFMTU).ifr_mtu != 9000) return 4;
    // Queues come and go, the interface stays.
    for (const unsigned count : {1u, 8u, 2u, 1u, 3u})
        if (const auto queues = (*tap)->queues(count); !queues || queues->size() != count) return 5;

    ifreq up = asked(socket.get(), SIOCGIFFLAGS);
    up.ifr_flags |= IFF_UP;
    asked(socket.get(), SIOCSIFFLAGS, up);
    if (carrier_up(socket.get())) return 6;
    if (!(*tap)->carrier(true) || !carrier_up(socket.get())) return 7;
    if (!(*tap)->carrier(false) || carrier_up(socket.get())) return 8;
    if (!(*tap)->carrier(true)) return 9;

    // A frame each way.
    const auto queues = (*tap)->queues(1);
    const FramePort port(std::move(*(*queues)[0]->duplicate()));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(0x88B5);
    address.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
    if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 10;
    std::array<std::byte, 5000> frame{};
    for (std::size_t i = 14; i < frame.size(); ++i) frame[i] = static_cast<std::byte>(i * 7);
    std::memcpy(frame.data(), mac.bytes.data(), 6);
    frame[6] = std::byte{2}, frame[12] = std::byte{0x88}, frame[13] = std::byte{0xB5};

    std::array<iovec, 3> parts{{{}, {frame.data(), 1000}, {frame.data() + 1000, 4000}}};
    if (!port.give({}, parts)) return 11;
    std::array<std::byte, 9000> got{};
    pollfd readable{.fd = socket.get(), .events = POLLIN, .revents = 0};
    ::poll(&readable, 1, 5000);
    if (::recv(socket.get(), got.data(), got.size(), 0) != static_cast<ssize_t>(frame.size())) return 12;
    if (std::memcmp(got.data(), frame.data(), frame.size()) != 0) return 13;

    if (::send(socket.get(), frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size())) return 14;
    net::VirtioHeader header;
    for (int tries = 0; tries < 100; ++tries) {  // the kernel says hello with frames of its own
        std::array<iovec, 4> room{{{}, {got.data(), 4096}, {got.data() + 4096, 4096}, {}}};
        const auto taken = port.take(header, room);
        if (taken.what != FramePort::Taken::What::frame) return 15;
        if (taken.length == frame.size() && std::memcmp(got.data(), frame.data(), frame.size()) == 0) {
            // A frame that does not fit is told from one that fits exactly.
            for (const std::size_t fits : {frame.size(), frame.size() - 1}) {
                if (::send(socket.get(), frame.data(), frame.size(), 0) < 0) return 16;
                std::array<iovec, 3> exact{{{}, {got.data(), fits}, {}}};
                const auto again = port.take(header, exact).what;
                if ((again == FramePort::Taken::What::frame) != (fits == frame.size())) return 17;
            }
            return 0;
        }
    }
    return 18;
}

}  // namespace

TEST_CASE("net: the TAP attachment has the address, the mtu, the queues and the link it was told, and carries frames") {
    const int result = in_own_network(tap_is_what_it_should_be);
    if (result == cannot) {
        WARN("skipped: no network namespace of one's own, or no /dev/net/tun");
        return;
    }
    CHECK(result == 0);
}
