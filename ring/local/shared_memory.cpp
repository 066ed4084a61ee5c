#include "ring/local/shared_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "ring/detail/shared_access.h"

namespace caisson::local {

namespace {
int protection(Access access) { return access == Access::read_write ? PROT_READ | PROT_WRITE : PROT_READ; }
}  // namespace

Status check_sealed(int fd, std::size_t at_least) {
    constexpr int needed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    const int seals = ::fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & needed) != needed) return peer_fault("granted pages without seals");
    struct stat file{};
    if (::fstat(fd, &file) != 0) return host_fault(errno, "fstat");
    if (file.st_size < 0 || static_cast<std::size_t>(file.st_size) < at_least)
        return peer_fault("bytes of granted pages", static_cast<std::uint64_t>(file.st_size), Wanted::at_least,
                          at_least);
    return {};
}

Result<Mapping> Mapping::map(int fd, std::size_t pages, Access access) {
    void* base = ::mmap(nullptr, pages * page_size, protection(access), MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) return host_fault(errno, "map pages");
    return Mapping(base, pages * page_size);
}

Result<Mapping> Mapping::reserve(std::size_t pages) {
    void* base = ::mmap(nullptr, pages * page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return host_fault(errno, "reserve address space");
    return Mapping(base, pages * page_size);
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this == &other) return *this;
    if (base_ != nullptr) ::munmap(base_, size_);
    base_ = std::exchange(other.base_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
}

Mapping::~Mapping() {
    if (base_ != nullptr) ::munmap(base_, size_);
}

Status Mapping::put(std::size_t at_page, int fd, std::size_t file_page, std::size_t pages, Access access) {
    if (!fits(at_page, pages, size_ / page_size)) return host_fault(ERANGE, "map pages");
    void* there = ::mmap(base_ + at_page * page_size, pages * page_size, protection(access), MAP_SHARED | MAP_FIXED, fd,
                         static_cast<off_t>(file_page * page_size));
    if (there == MAP_FAILED) return host_fault(errno, "map pages");
    return {};
}

SharedSpan Mapping::span() const { return detail::SharedAccess::span(base_, size_); }

SharedSpan Mapping::release() {
    const SharedSpan span = detail::SharedAccess::span(base_, size_);
    base_ = nullptr;
    size_ = 0;
    return span;
}

Mapping Mapping::adopt(SharedSpan span) { return {detail::SharedAccess::base(span), span.size()}; }

}  // namespace caisson::local
