#include "frontends/net/attachment_tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

namespace caisson::net::frontend {

namespace {

ifreq request_for(const std::string& name) {
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min(name.size(), std::size_t{IFNAMSIZ - 1}));
    return request;
}

class Tap final : public Attachment {
  public:
    explicit Tap(std::string name) : name_(std::move(name)) {}

    Status add_queue() {
        Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
        if (!fd) return host_fault(errno, "open /dev/net/tun");
        ifreq request = request_for(name_);
        request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
        if (::ioctl(fd.get(), TUNSETIFF, &request) < 0) return host_fault(errno, "TUNSETIFF", name_);
        int header = sizeof(VirtioHeader);
        if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header) < 0) return host_fault(errno, "TUNSETVNETHDRSZ", name_);
        int little_endian = 1;  // ours is this machine's order; the ioctl matters on big-endian kernels only
        (void)::ioctl(fd.get(), TUNSETVNETLE, &little_endian);
        fds_.push_back({std::move(fd), true});
        return {};
    }

    Status set_mac(const Mac& mac) {
        ifreq request = request_for(name_);
        request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
        std::memcpy(request.ifr_hwaddr.sa_data, mac.bytes.data(), 6);
        return interface_ioctl(SIOCSIFHWADDR, request, "set the address of");
    }

    Status configure(const Offloads& peer, std::uint32_t mtu) override {
        unsigned offload = 0;
        if (peer.csum_ipv4 || peer.csum_ipv6) offload |= TUN_F_CSUM;
        if (offload != 0 && peer.gso_tcpv4) offload |= TUN_F_TSO4;
        if (offload != 0 && peer.gso_tcpv6) offload |= TUN_F_TSO6;
        if (::ioctl(fds_[0].fd.get(), TUNSETOFFLOAD, offload) < 0) return host_fault(errno, "TUNSETOFFLOAD", name_);
        ifreq request = request_for(name_);
        request.ifr_mtu = static_cast<int>(mtu);
        return interface_ioctl(SIOCSIFMTU, request, "set the mtu of");
    }

    Status carrier(bool up) override {
        int value = up ? 1 : 0;
        if (::ioctl(fds_[0].fd.get(), TUNSETCARRIER, &value) < 0) return host_fault(errno, "TUNSETCARRIER", name_);
        return {};
    }

    Result<std::vector<const Fd*>> queues(unsigned count) override {
        while (fds_.size() < count) TRY(add_queue());
        std::vector<const Fd*> out;
        for (std::size_t i = 0; i < fds_.size(); ++i) {
            TRY(attach(fds_[i], i < count));
            if (i < count) out.push_back(&fds_[i].fd);
        }
        return out;
    }

  private:
    struct Queue {
        Fd fd;
        bool attached;
    };
    // The kernel spreads frames over attached queues only.
    Status attach(Queue& queue, bool wanted) {
        if (queue.attached == wanted) return {};
        ifreq request{};
        request.ifr_flags = wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
        if (::ioctl(queue.fd.get(), TUNSETQUEUE, &request) < 0) return host_fault(errno, "TUNSETQUEUE", name_);
        queue.attached = wanted;
        return {};
    }
    Status interface_ioctl(unsigned long what, ifreq& request, const char* says) {
        const Fd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!any) return host_fault(errno, "socket");
        if (::ioctl(any.get(), what, &request) < 0) return host_fault(errno, says, name_);
        return {};
    }

    std::string name_;
    std::vector<Queue> fds_;  // never empty once made
};

}  // namespace

Result<std::unique_ptr<Attachment>> open_tap(const TapOptions& options) {
    if (options.name.empty() || options.name.size() >= IFNAMSIZ) return host_fault(EINVAL, "tap name", options.name);
    auto tap = std::make_unique<Tap>(options.name);
    TRY(tap->add_queue());
    if (options.mac) TRY(tap->set_mac(*options.mac));
    TRY(tap->carrier(false));
    return tap;
}

}  // namespace caisson::net::frontend
