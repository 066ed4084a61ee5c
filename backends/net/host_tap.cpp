#include "backends/net/host_tap.h"

#include <array>
#include <cerrno>

namespace caisson::net::backend {

bool write_frame(int tap, const Frame& frame) {
    std::array<iovec, max_slots + 3> parts;
    std::size_t count = 0;
    VirtioHeader header = frame.virtio;
    parts[count++] = {&header, sizeof header};
    parts[count++] = {const_cast<std::byte*>(frame.head.data()), frame.head.size()};  // writev only reads
    for (const SharedSpan& part : frame.shared) parts[count++] = part.for_kernel();
    if (!frame.tail.empty()) parts[count++] = {const_cast<std::byte*>(frame.tail.data()), frame.tail.size()};
    return ::writev(tap, parts.data(), static_cast<int>(count)) >= 0;
}

std::size_t read_frame(int tap, std::span<const iovec> room, bool& gone) {
    const ssize_t bytes = ::readv(tap, room.data(), static_cast<int>(room.size()));
    if (bytes >= 0) return static_cast<std::size_t>(bytes);
    if (errno != EAGAIN && errno != EINTR) gone = true;
    return 0;
}

Result<std::unique_ptr<Host>> TapHost::make(unsigned queues, HandoverReader& handover) {
    auto host = std::make_unique<TapHost>();
    for (unsigned n = 0; n < queues; ++n) host->queues_.push_back(TRY(handover.fd()));
    return host;
}

}  // namespace caisson::net::backend
