#include "domains/worker/mailbox.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace caisson {
namespace {

constexpr std::size_t frame_bytes = 32 * 1024, frame_descriptors = 250;
constexpr std::size_t most_waiting = 4096;  // frames; a worker that reads none of them is stuck
// A socket without room says when it has some (POLLOUT); the kernel's room for descriptors does not.
constexpr std::chrono::milliseconds first_pause{2}, longest_pause{250};

struct FrameHeader {
    std::uint32_t kind, device;
    std::uint32_t more;  // 1: another frame of this message follows
    std::uint32_t zero;
};

std::vector<Fd> take_descriptors(msghdr& message) {
    std::vector<Fd> taken;
    for (cmsghdr* control = CMSG_FIRSTHDR(&message); control; control = CMSG_NXTHDR(&message, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof fd);
            taken.emplace_back(fd);
        }
    }
    return taken;
}

}  // namespace

Result<std::pair<Fd, Fd>> make_mail_sockets() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return host_fault(errno, "socketpair");
    return std::pair(Fd(ends[0]), Fd(ends[1]));
}

Mailbox::Mailbox(Loop& loop, Fd socket, Limits limits, Handlers handlers)
    : loop_(loop), socket_(std::move(socket)), limits_(limits), handlers_(std::move(handlers)) {
    readable_ = loop_.watch(socket_.get(), POLLIN, [this](short) { receive(); });
}

Mailbox::~Mailbox() { *alive_ = false; }

void Mailbox::send(MailKind kind, std::uint32_t device, std::span<const std::byte> bytes,
                   std::span<const int> descriptors) {
    do {
        const std::size_t length = std::min(bytes.size(), frame_bytes);
        const std::size_t count = std::min(descriptors.size(), frame_descriptors);
        const bool more = length < bytes.size() || count < descriptors.size();
        const FrameHeader header{static_cast<std::uint32_t>(kind), device, more, 0};
        std::vector<std::byte> packet(sizeof header + length);
        std::memcpy(packet.data(), &header, sizeof header);
        if (length > 0) std::memcpy(packet.data() + sizeof header, bytes.data(), length);
        const auto lent = descriptors.first(count);
        const Sent sent = waiting_.empty() ? try_send(packet, lent) : Sent::full;
        if (sent != Sent::done) {
            if (waiting_.empty()) wait(sent);
            Frame frame{.packet = std::move(packet), .descriptors = {}};
            for (const int fd : lent) frame.descriptors.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
            waiting_.push_back(std::move(frame));
        }
        bytes = bytes.subspan(length);
        descriptors = descriptors.subspan(count);
    } while (!bytes.empty() || !descriptors.empty());
    if (waiting_.size() > most_waiting) return close("reads no mail");
}

// A socket that is broken swallows the frame: receive() will notice.
Mailbox::Sent Mailbox::try_send(std::span<const std::byte> packet, std::span<const int> descriptors) {
    iovec piece{const_cast<std::byte*>(packet.data()), packet.size()};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * frame_descriptors)> space;
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
        message.msg_control = space.data();
        message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
        cmsghdr* control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(descriptors.size_bytes());
        std::memcpy(CMSG_DATA(control), descriptors.data(), descriptors.size_bytes());
    }
    const auto sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return Sent::done;
    if (errno == EAGAIN) return Sent::full;
    return errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM ? Sent::crowded : Sent::done;
}

void Mailbox::wait(Sent because) {
    if (because == Sent::full) {
        next_pause_ = {};
        if (!writable_) writable_ = loop_.watch(socket_.get(), POLLOUT, [this](short) { flush(); });
        return;
    }
    writable_.reset();
    next_pause_ = std::clamp<Loop::Clock::duration>(next_pause_ * 2, first_pause, longest_pause);
    pause_ = loop_.after(next_pause_, [this] { flush(); });
}

void Mailbox::flush() {
    while (!waiting_.empty()) {
        std::vector<int> lent;
        for (const Fd& fd : waiting_.front().descriptors) lent.push_back(fd.get());
        if (const Sent sent = try_send(waiting_.front().packet, lent); sent != Sent::done) return wait(sent);
        waiting_.pop_front();
    }
    writable_.reset();
    next_pause_ = {};
}

void Mailbox::receive() {
    const auto alive = alive_;
    for (unsigned i = 0; *alive && i < limits_.turn && receive_one(); ++i) {
    }
}

bool Mailbox::receive_one() {
    std::array<std::byte, sizeof(FrameHeader) + frame_bytes> packet;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 253)> space;
    iovec piece{packet.data(), packet.size()};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = space.data();
    message.msg_controllen = space.size();
    const auto length = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    auto descriptors = length > 0 ? take_descriptors(message) : std::vector<Fd>{};
    FrameHeader header{};
    if (length <= 0) return close("has closed its socket"), false;
    if (static_cast<std::size_t>(length) < sizeof header || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return close("sends broken frames"), false;
    std::memcpy(&header, packet.data(), sizeof header);
    const auto body = std::span(packet).first(static_cast<std::size_t>(length)).subspan(sizeof header);
    if (!fits(partial_.bytes.size(), body.size(), limits_.bytes) ||
        !fits(partial_.descriptors.size(), descriptors.size(), limits_.descriptors))
        return close("sends more than it may"), false;
    partial_.bytes.insert(partial_.bytes.end(), body.begin(), body.end());
    std::ranges::move(descriptors, std::back_inserter(partial_.descriptors));
    if (header.more != 0) return true;
    Mail mail = std::exchange(partial_, {});
    mail.kind = static_cast<MailKind>(header.kind);
    mail.device = header.device;
    const auto received = handlers_.received;  // the handler may destroy us, and with us itself
    received(std::move(mail));
    return true;
}

void Mailbox::close(const char* why) {
    readable_.reset();
    writable_.reset();
    pause_.reset();
    waiting_.clear();
    limits_.turn = 0;
    if (const auto closed = std::exchange(handlers_.closed, nullptr)) closed(why);
}

}  // namespace caisson
