// The other end of a disk's NBD attachment: what Linux' nbd driver sends and reads, or whatever a liar in its place
// does. The transmission phase alone, as the driver has it: doc/proto.md of the NBD project.
#pragma once

#include <endian.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

#include "ring/fd.h"

namespace caisson::test {

enum class NbdCommand : std::uint16_t { read = 0, write = 1, disconnect = 2, flush = 3, trim = 4 };

inline std::vector<std::byte> nbd_request(NbdCommand command, std::uint64_t handle, std::uint64_t offset = 0,
                                          std::uint32_t length = 0, std::uint16_t flags = 0) {
    std::vector<std::byte> bytes;
    const auto put = [&](auto value) {
        const auto* raw = reinterpret_cast<const std::byte*>(&value);
        bytes.insert(bytes.end(), raw, raw + sizeof value);
    };
    put(htobe32(0x25609513));
    put(htobe16(flags));
    put(htobe16(static_cast<std::uint16_t>(command)));
    put(htobe64(handle));
    put(htobe64(offset));
    put(htobe32(length));
    return bytes;
}

class NbdDriver {
  public:
    explicit NbdDriver(Fd socket) : socket_(std::move(socket)) {}

    // As much as the socket takes now; the rest with flush_out(). False: the other end is gone.
    bool send(std::span<const std::byte> bytes) {
        out_.insert(out_.end(), bytes.begin(), bytes.end());
        return flush_out();
    }
    bool flush_out() {
        while (!out_.empty()) {
            const ssize_t sent = ::send(socket_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent < 0) return errno == EAGAIN;
            out_.erase(out_.begin(), out_.begin() + sent);
        }
        return true;
    }
    bool ask(NbdCommand command, std::uint64_t handle, std::uint64_t offset = 0, std::uint32_t length = 0,
             std::span<const std::byte> data = {}, std::uint16_t flags = 0) {
        if (command == NbdCommand::read) reads_[handle] = length;
        auto bytes = nbd_request(command, handle, offset, length, flags);
        bytes.insert(bytes.end(), data.begin(), data.end());
        return send(bytes);
    }

    struct Reply {
        std::uint64_t handle = 0;
        std::uint32_t error = 0;
        std::vector<std::byte> data;
    };
    // The next one that is all here. What is no reply throws.
    std::optional<Reply> reply() {
        if (in_.size() < 16 && !fill(16)) return std::nullopt;
        std::uint32_t magic = 0, error = 0;
        Reply one;
        std::memcpy(&magic, in_.data(), 4);
        std::memcpy(&error, in_.data() + 4, 4);
        std::memcpy(&one.handle, in_.data() + 8, 8);
        if (be32toh(magic) != 0x67446698) throw std::runtime_error("this is no reply");
        one.error = be32toh(error);
        one.handle = be64toh(one.handle);
        const auto read = reads_.find(one.handle);
        const std::size_t data = read != reads_.end() && one.error == 0 ? read->second : 0;
        if (in_.size() < 16 + data && !fill(16 + data)) return std::nullopt;
        one.data.assign(in_.begin() + 16, in_.begin() + static_cast<std::ptrdiff_t>(16 + data));
        in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(16 + data));
        if (read != reads_.end()) reads_.erase(read);
        return one;
    }
    bool ended() const { return ended_; }  // the server's end was closed; known after reply()
    const Fd& socket() const { return socket_; }

  private:
    bool fill(std::size_t wanted) {
        while (in_.size() < wanted) {
            const std::size_t have = in_.size();
            in_.resize(wanted);
            const ssize_t got = ::recv(socket_.get(), in_.data() + have, wanted - have, MSG_DONTWAIT);
            in_.resize(have + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
            ended_ |= got == 0;
            if (got <= 0) return false;
        }
        return true;
    }

    Fd socket_;
    std::vector<std::byte> out_, in_;
    std::map<std::uint64_t, std::uint32_t> reads_;
    bool ended_ = false;
};

}  // namespace caisson::test
