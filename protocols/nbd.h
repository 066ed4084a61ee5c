// NBD, the transmission phase with simple replies: what is left when hands have been shaken. Spoken to a server by the
// backend's host, and to the kernel's nbd driver by the frontend's attachment.
//
//   request  magic u32, flags u16, command u16, cookie u64, offset u64, length u32 [, data of a write]
//   reply    magic u32, error u32, cookie u64 [, data of a read without error]
//
// All numbers are big-endian; errors are Linux' numbers, of which the protocol names a few.
//
// Source: doc/proto.md of the NBD project, "Transmission phase".
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace caisson::nbd {

inline constexpr std::uint32_t request_magic = 0x25609513, reply_magic = 0x67446698;
inline constexpr std::size_t request_bytes = 28, reply_bytes = 16;

namespace command {
inline constexpr std::uint16_t read = 0, write = 1, disconnect = 2, flush = 3, trim = 4;
}

struct Request {
    std::uint16_t flags = 0, command = 0;
    std::uint64_t cookie = 0, offset = 0;
    std::uint32_t length = 0;
};

struct Reply {
    std::uint32_t error = 0;
    std::uint64_t cookie = 0;
};

namespace detail {

template <std::unsigned_integral T>
T big_endian(T value) {
    return std::endian::native == std::endian::little ? std::byteswap(value) : value;
}

// All of them, one behind the other.
template <class... T>
void put(std::span<std::byte> to, T... values) {
    std::size_t at = 0;
    const auto one = [&](auto value) {
        value = big_endian(value);
        std::memcpy(to.subspan(at, sizeof value).data(), &value, sizeof value);
        at += sizeof value;
    };
    (one(values), ...);
}
template <class... T>
void take(std::span<const std::byte> from, T&... values) {
    std::size_t at = 0;
    const auto one = [&](auto& value) {
        std::memcpy(&value, from.subspan(at, sizeof value).data(), sizeof value);
        value = big_endian(value);
        at += sizeof value;
    };
    (one(values), ...);
}

}  // namespace detail

inline std::array<std::byte, request_bytes> encode(const Request& request) {
    std::array<std::byte, request_bytes> bytes;
    detail::put(bytes, request_magic, request.flags, request.command, request.cookie, request.offset, request.length);
    return bytes;
}

inline std::array<std::byte, reply_bytes> encode(const Reply& reply) {
    std::array<std::byte, reply_bytes> bytes;
    detail::put(bytes, reply_magic, reply.error, reply.cookie);
    return bytes;
}

// Nothing: this is no request. Whether its command is known, its flags were offered and its range is inside, is asked
// by whoever serves it.
inline std::optional<Request> parse_request(std::span<const std::byte, request_bytes> bytes) {
    Request request;
    std::uint32_t magic = 0;
    detail::take(bytes, magic, request.flags, request.command, request.cookie, request.offset, request.length);
    return magic == request_magic ? std::optional(request) : std::nullopt;
}

// Nothing: this is no (simple) reply. Whether its cookie was ever sent is asked by whoever sent it.
inline std::optional<Reply> parse_reply(std::span<const std::byte, reply_bytes> bytes) {
    Reply reply;
    std::uint32_t magic = 0;
    detail::take(bytes, magic, reply.error, reply.cookie);
    return magic == reply_magic ? std::optional(reply) : std::nullopt;
}

}  // namespace caisson::nbd
