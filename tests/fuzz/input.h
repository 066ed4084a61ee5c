// A fuzz target's bytes, taken from the front; zeros when there are no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace caisson::test {

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
    bool empty() const { return left_ == 0; }
    std::uint8_t byte() {
        if (left_ == 0) return 0;
        --left_;
        return *data_++;
    }
    template <class T>
    T value() {
        T out{};
        for (std::byte& byte_of : std::as_writable_bytes(std::span(&out, 1))) byte_of = std::byte{byte()};
        return out;
    }
    std::uint16_t word() { return value<std::uint16_t>(); }
    std::uint32_t number() { return value<std::uint32_t>(); }

  private:
    const std::uint8_t* data_;
    std::size_t left_;
};

}  // namespace caisson::test
