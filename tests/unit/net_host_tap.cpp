// Real TAP interfaces, in a network namespace of the test's own: made, configured, bridged, routed, and spoken to
// through the descriptors that a worker gets.
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "backends/net/host_tap.h"
#include "backends/net/tap_interface.h"

using namespace caisson;
using namespace caisson::net;
using namespace caisson::net::backend;

namespace {

std::string content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Runs `body` in a new user and network namespace; what it says is what was wrong, "skipped: ..." that it could not.
std::string in_own_namespace(const std::function<std::string()>& body) {
    int pipe_ends[2];
    if (::pipe(pipe_ends) != 0) return "pipe";
    const pid_t child = ::fork();
    if (child == 0) {
        std::string said = "skipped: no network namespace of one's own here";
        const std::string uid = std::to_string(::getuid());
        if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) {
            std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1";
            const Fd tun(::open("/dev/net/tun", O_RDWR));
            said = tun ? body() : "skipped: no /dev/net/tun";
        }
        (void)!::write(pipe_ends[1], said.data(), said.size());
        ::_exit(0);
    }
    ::close(pipe_ends[1]);
    std::string said;
    char buffer[256];
    for (ssize_t got; (got = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0;)
        said.append(buffer, static_cast<std::size_t>(got));
    ::close(pipe_ends[0]);
    ::waitpid(child, nullptr, 0);
    return said;
}

void check(const std::string& said) {
    if (said.starts_with("skipped:"))
        WARN(said);
    else
        CHECK(said == "");
}

#define MUST(condition) \
    if (!(condition)) return #condition " in line " + std::to_string(__LINE__)
#define MUST_WORK(call) \
    if (const auto& status = (call); !status) return status.error().message()

std::string interface_call(unsigned long call, const char* name, const sockaddr* address) {
    const Fd fd(::socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request{};
    std::snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    if (address != nullptr) request.ifr_addr = *address;
    if (call == SIOCSIFFLAGS) request.ifr_flags = IFF_UP;
    return ::ioctl(fd.get(), call, call == SIOCBRADDBR ? static_cast<const void*>(name) : &request) == 0
               ? ""
               : std::strerror(errno);
}

// The next frame that satisfies `wanted`; others (the kernel greets an interface with IPv6 and IGMP) are passed over.
std::vector<std::byte> await(int tap, const std::function<bool(Bytes)>& wanted) {
    std::vector<std::byte> bytes(70000);
    for (pollfd ready{tap, POLLIN, 0}; ::poll(&ready, 1, 20000) > 0;) {
        VirtioHeader header;
        bool gone = false;
        const std::array room{iovec{&header, sizeof header}, iovec{bytes.data(), bytes.size()}};
        const std::size_t got = read_frame(tap, room, gone);
        if (got <= sizeof header) continue;
        const Bytes frame = Bytes(bytes).first(got - sizeof header);
        if (wanted(frame)) return {frame.begin(), frame.end()};
    }
    return {};
}

std::vector<std::byte> packet(std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (const int value : values) out.push_back(static_cast<std::byte>(value));
    return out;
}

bool send(int tap, Bytes bytes) {
    return write_frame(tap, {.head = bytes, .size = static_cast<std::uint32_t>(bytes.size())});
}

}  // namespace

TEST_CASE("a routed TAP answers ARP for what lies behind it, has its gateway's address and a route to the guest") {
    check(in_own_namespace([]() -> std::string {
        // The gateway device: an interface with the address 192.0.2.2/24 and a network behind it.
        auto outside = TapInterface::make("outside0");
        MUST_WORK(outside);
        MUST_WORK(outside->up());
        sockaddr address{.sa_family = AF_INET, .sa_data = {0, 0, char(192), 0, 2, 2}};
        MUST(interface_call(SIOCSIFADDR, "outside0", &address).empty());
        auto tap = TapInterface::make("vif3.0");
        MUST_WORK(tap);
        MUST_WORK(tap->set_mtu(1400));
        MUST_WORK(tap->up());
        GuestAddresses guest;
        guest.v4[guest.v4_count++] = {10, 137, 0, 10};
        guest.v6[guest.v6_count++] = {0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10};
        MUST_WORK(tap->route(guest, "outside0"));
        MUST_WORK(tap->route(guest, "outside0"));  // again, as after a reconnect
        MUST(content("/proc/self/net/route").find("vif3.0\t0A00890A\t") != std::string::npos);
        MUST(content("/proc/sys/net/ipv4/conf/vif3.0/proxy_arp") == "1\n");
        MUST(content("/proc/self/net/ipv6_route").find("fd00000000000000000000000000000a 80") != std::string::npos);

        (void)!std::ofstream("/proc/sys/net/ipv4/ip_forward").put('1').flush();
        const int fd = tap->queues().front().get();
        // Who has 192.0.2.1 (behind outside0)? Asks the guest, and gets the TAP's own MAC.
        MUST(send(fd,
                  packet({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x16, 0x3E, 0, 0,  1, 8, 6, 0, 1, 8, 0,   6, 4, 0,
                          1,    0,    0x16, 0x3E, 0,    0,    1, 10,   137,  0, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1})));
        const auto reply = await(fd, [](Bytes frame) {
            return frame.size() >= 42 && big16(frame, 12) == ethertype::arp && big16(frame, 20) == 2;
        });
        MUST(!reply.empty());
        MUST(big16(reply, 28) == (192 << 8 | 0) && big16(reply, 30) == (2 << 8 | 1));
        MUST(big16(reply, 22) == 0xFEFF && big16(reply, 24) == 0xFFFF && big16(reply, 26) == 0xFFFF);  // of every vif
        return "";
    }));
}

TEST_CASE("a TAP joins a bridge, and has as many queues as it is asked for") {
    check(in_own_namespace([]() -> std::string {
        MUST(!bridge_exists("br0"));
        const std::string made = interface_call(SIOCBRADDBR, "br0", nullptr);
        if (!made.empty()) return "skipped: no bridges here: " + made;
        MUST(bridge_exists("br0"));
        MUST(!bridge_exists("lo"));
        MUST(interface_call(SIOCSIFFLAGS, "br0", nullptr).empty());
        auto one = TapInterface::make("vif3.0"), two = TapInterface::make("vif4.0");
        MUST_WORK(one);
        MUST_WORK(two);
        for (auto* tap : {&*one, &*two}) {
            MUST_WORK(tap->set_offloads({true, true, true, true, true}));
            MUST_WORK(tap->join("br0"));
            MUST_WORK(tap->join("br0"));
            MUST_WORK(tap->up());
        }
        MUST_WORK(one->set_queues(4));
        MUST(one->queues().size() == 4);
        MUST_WORK(one->set_queues(1));
        // From one guest to the other, through the bridge, 9000 bytes in one piece.
        MUST_WORK(one->set_mtu(9000));
        MUST_WORK(two->set_mtu(9000));
        std::vector<std::byte> frame(9000);
        const auto head = packet({0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x16, 0x3E, 0, 0, 1, 0x88, 0xB5, 42});
        std::copy(head.begin(), head.end(), frame.begin());
        MUST(send(one->queues().front().get(), frame));
        MUST(await(two->queues().front().get(), [&](Bytes got) { return std::ranges::equal(got, frame); }).size() ==
             9000);
        return "";
    }));
}

TEST_CASE("names that are no interface names make no interface") {
    for (const char* name : {"", "a/b", "sixteen-letters.", "..", "a b", "%d"}) CHECK_FALSE(interface_name_valid(name));
    CHECK(interface_name_valid("vif3.0"));
}
