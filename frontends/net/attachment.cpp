#include "frontends/net/attachment.h"

#include <cerrno>

namespace caisson::net::frontend {

FramePort::Taken FramePort::take(VirtioHeader& header, std::span<iovec> pages) const {
    std::byte beyond{};
    std::size_t room = 0;
    for (std::size_t i = 1; i + 1 < pages.size(); ++i) room += pages[i].iov_len;
    pages.front() = {&header, sizeof header};
    pages.back() = {&beyond, 1};
    const ssize_t got = ::readv(fd_.get(), pages.data(), static_cast<int>(pages.size()));
    if (got < 0) {
        const bool later = errno == EAGAIN || errno == EINTR;
        return {later ? Taken::What::nothing : Taken::What::gone};
    }
    if (got == 0) return {Taken::What::gone};
    const auto bytes = static_cast<std::size_t>(got);
    if (bytes < sizeof header + min_packet) return {Taken::What::too_long};  // no frame at all
    if (bytes > sizeof header + room) return {Taken::What::too_long};
    return {Taken::What::frame, static_cast<std::uint32_t>(bytes - sizeof header)};
}

bool FramePort::give(const VirtioHeader& header, std::span<iovec> frame) const {
    VirtioHeader copy = header;
    frame.front() = {&copy, sizeof copy};
    return ::writev(fd_.get(), frame.data(), static_cast<int>(frame.size())) >= 0;
}

}  // namespace caisson::net::frontend
