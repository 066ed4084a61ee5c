// net_copier NETNS_A TAP_A NETNS_B TAP_B: what a split driver is measured against. Two TAPs with virtio headers and
// full offloads, one process, one thread, a read and a write a frame: nothing can be simpler and still carry the same
// frames. Prints "ready" when both TAPs are up; runs until it is killed.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

int open_tap(const char* netns, const char* name) {
    const int ns = ::open((std::string("/run/netns/") + netns).c_str(), O_RDONLY | O_CLOEXEC);
    if (ns < 0 || ::setns(ns, CLONE_NEWNET) < 0) fail(netns);
    ::close(ns);
    const int tap = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0) fail("/dev/net/tun");
    ifreq request{};
    std::snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    int header = 12;
    if (::ioctl(tap, TUNSETIFF, &request) < 0 || ::ioctl(tap, TUNSETVNETHDRSZ, &header) < 0 ||
        ::ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
        fail(name);
    const int control = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (::ioctl(control, SIOCGIFFLAGS, &request) < 0) fail("SIOCGIFFLAGS");
    request.ifr_flags |= IFF_UP;
    if (::ioctl(control, SIOCSIFFLAGS, &request) < 0) fail("SIOCSIFFLAGS");
    ::close(control);
    return tap;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: net_copier NETNS_A TAP_A NETNS_B TAP_B\n");
        return 2;
    }
    const int taps[2] = {open_tap(argv[1], argv[2]), open_tap(argv[3], argv[4])};
    std::puts("ready");
    std::fflush(stdout);
    std::vector<char> frame(12 + 65536 + 64);
    for (;;) {
        pollfd wait[2] = {{taps[0], POLLIN, 0}, {taps[1], POLLIN, 0}};
        ::poll(wait, 2, -1);
        for (int side = 0; side < 2; ++side)
            for (int budget = 64; budget > 0; --budget) {
                const ssize_t length = ::read(taps[side], frame.data(), frame.size());
                if (length <= 0) break;
                if (::write(taps[1 - side], frame.data(), static_cast<std::size_t>(length)) < 0 && errno == EBADFD)
                    return 1;
            }
    }
}
