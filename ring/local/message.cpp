#include "ring/local/message.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

namespace caisson::local {

namespace {
constexpr std::size_t most_descriptors = 253;  // SCM_MAX_FD of net/scm.h
constexpr std::size_t control_bytes = CMSG_SPACE(most_descriptors * sizeof(int));
}  // namespace

Received receive(int socket, Message& message) {
    alignas(cmsghdr) std::array<std::byte, control_bytes> control;
    iovec data{message.bytes.data(), message.bytes.size()};
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    message.descriptors.clear();
    ssize_t got;
    do got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0) return errno == EAGAIN ? Received::nothing_yet : Received::end;

    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            message.descriptors.emplace_back(fd);
        }
    }
    message.size = static_cast<std::size_t>(got);
    message.truncated = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    // An empty packet cannot be told from the end by recvmsg; nobody has a reason to send one.
    return got == 0 ? Received::end : Received::message;
}

int send(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors) {
    alignas(cmsghdr) std::array<std::byte, control_bytes> control;
    iovec data{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    if (!descriptors.empty()) {
        if (descriptors.size() > most_descriptors) return E2BIG;
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
        std::fill_n(control.begin(), header.msg_controllen, std::byte{});
        cmsghdr* part = CMSG_FIRSTHDR(&header);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(descriptors.size_bytes());
        std::memcpy(CMSG_DATA(part), descriptors.data(), descriptors.size_bytes());
    }
    ssize_t sent;
    do sent = ::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

}  // namespace caisson::local
