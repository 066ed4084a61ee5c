// One SEQPACKET message with its descriptors, for both ends of a hypervisor connection. Nothing here blocks.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "ring/fd.h"
#include "ring/local/wire.h"

namespace caisson::local {

struct Message {
    std::array<std::byte, largest_message> bytes;
    std::size_t size = 0;
    std::vector<Fd> descriptors;
    bool truncated = false;  // bytes or descriptors were cut off: the sender broke the rules

    std::span<const std::byte> data() const { return std::span(bytes).first(size); }
};

enum class Received : std::uint8_t { message, nothing_yet, end };

// Takes the next message. `end`: the other side is gone, or the socket is broken.
Received receive(int socket, Message& message);

// 0, or an errno: EAGAIN when the other side does not read. Descriptors are borrowed. At most 253.
int send(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors = {});

// A message of this very type, or nothing. Reading a shorter one as a longer one is how secrets travel.
template <Wire T>
std::optional<T> as(std::span<const std::byte> bytes) {
    if (bytes.size() != sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

template <Wire T>
std::span<const std::byte> bytes_of(const T& message) {
    return std::as_bytes(std::span(&message, 1));
}

}  // namespace caisson::local
