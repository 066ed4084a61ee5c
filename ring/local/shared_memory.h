// Mapping pages that came as a descriptor. Whoever made them may be hostile: their size is sealed, or they are refused.
#pragma once

#include "ring/fd.h"
#include "ring/hypervisor.h"

namespace caisson::local {

// Size and seals are as the local hypervisor makes them: nobody can cut the pages off under us (SIGBUS).
Status check_sealed(int fd, std::size_t at_least);

class Mapping {
  public:
    Mapping() = default;
    // `pages` of the file from page 0.
    static Result<Mapping> map(int fd, std::size_t pages, Access access);
    // Address space to be filled page by page with put(). Nothing can be reached in it before.
    static Result<Mapping> reserve(std::size_t pages);
    Mapping(Mapping&& other) noexcept
        : base_(std::exchange(other.base_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    Status put(std::size_t at_page, int fd, std::size_t file_page, std::size_t pages, Access access);

    explicit operator bool() const { return base_ != nullptr; }
    SharedSpan span() const;
    const std::byte* base() const { return base_; }
    std::byte* base() { return base_; }
    std::size_t size() const { return size_; }
    // Whoever takes the span unmaps it, with a Mapping made by adopt().
    SharedSpan release();
    static Mapping adopt(SharedSpan span);

  private:
    Mapping(void* base, std::size_t size) : base_(static_cast<std::byte*>(base)), size_(size) {}
    std::byte* base_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace caisson::local
