#include "frontends/net/attachment_socket.h"

#include <sys/socket.h>

namespace caisson::net::frontend {

namespace {

constexpr int socket_buffer = 1 << 20;  // several frames of 64 KiB, as the kernel counts them

class Sockets final : public Attachment {
  public:
    explicit Sockets(SocketEnds& ends) : ends_(ends) {}

    Status open(unsigned queues) {
        for (unsigned i = 0; i < queues; ++i) {
            int pair[2];
            if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return host_fault(errno, "socketpair");
            ours_.emplace_back(pair[0]);
            ends_.queue.emplace_back(pair[1]);
            for (const int fd : pair) (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &socket_buffer, sizeof(int));
        }
        return {};
    }
    Status configure(const Offloads& peer, std::uint32_t mtu) override {
        ends_.peer = peer;
        ends_.mtu = mtu;
        return {};
    }
    Status carrier(bool up) override {
        ends_.up = up;
        return {};
    }
    Result<std::vector<const Fd*>> queues(unsigned count) override {
        if (count > ours_.size()) return host_fault(EINVAL, "more queues than sockets");
        std::vector<const Fd*> out;
        for (unsigned i = 0; i < count; ++i) out.push_back(&ours_[i]);
        return out;
    }

  private:
    SocketEnds& ends_;
    std::vector<Fd> ours_;
};

}  // namespace

Result<std::unique_ptr<Attachment>> open_sockets(SocketEnds& ends, unsigned queues) {
    auto sockets = std::make_unique<Sockets>(ends);
    TRY(sockets->open(queues));
    return sockets;
}

}  // namespace caisson::net::frontend
