// How far a conversation on a stream socket is: a count of bytes in memory that outlives its owner, right whatever
// instruction that one dies on.
//
// A stream has no messages that come whole or not at all, as /dev/fuse has: who dies between recvmsg() and the note of
// what it returned has lost the place in the stream for ever. recvmmsg() and sendmmsg() do the same, but the kernel
// itself writes the count beside the arguments before it returns, and nobody dies in between (Linux, net/socket.c:
// do_recvmmsg() and __sys_sendmmsg(), `put_user(err, &entry->msg_len)`). So the arguments lie in the journal.
//
// Plain values, all zero at first. The pages must be there (AttachmentServer::fetch_pages).
#pragma once

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

namespace caisson::block::frontend {

struct StreamCount {
    std::uint64_t total() const { return steps[current & 1].before + steps[current & 1].call.msg_len; }

    // Says that `bytes` have gone, and nothing of what comes next. One store makes it so.
    void restart(std::uint64_t bytes = 0) {
        const std::uint32_t next = (current & 1) ^ 1;
        steps[next].before = bytes;
        steps[next].call = {};
        std::atomic_signal_fence(std::memory_order_seq_cst);
        current = next;
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }

    // One call each; they never wait. What went, or a negative errno; 0 of receive() is the stream's end.
    int receive(int fd, std::span<std::byte> to) {
        iovec part{to.data(), to.size()};
        return step({&part, 1}, [&](mmsghdr& call) { return ::recvmmsg(fd, &call, 1, MSG_DONTWAIT, nullptr); });
    }
    int send(int fd, std::span<iovec> parts) {
        return step(parts, [&](mmsghdr& call) { return ::sendmmsg(fd, &call, 1, MSG_DONTWAIT | MSG_NOSIGNAL); });
    }

    struct Step {
        std::uint64_t before;
        mmsghdr call;
    };
    std::uint32_t current = 0;
    std::array<Step, 2> steps{};

  private:
    template <class Call>
    int step(std::span<iovec> parts, Call&& make) {
        restart(total());
        mmsghdr& call = steps[current].call;
        call.msg_hdr.msg_iov = parts.data();
        call.msg_hdr.msg_iovlen = parts.size();
        std::atomic_signal_fence(std::memory_order_seq_cst);
        return make(call) < 0 ? -errno : static_cast<int>(call.msg_len);
    }
};

}  // namespace caisson::block::frontend
