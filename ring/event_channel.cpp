#include "ring/event_channel.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>

namespace caisson {

namespace {

// /dev/xen/evtchn: a read gives pending ports and masks them, a write unmasks them (xen/evtchn.h of Linux).
constexpr std::size_t xen_ports_per_read = 1;

bool clear_xen(int fd) {
    std::array<std::uint32_t, xen_ports_per_read> ports;
    return ::read(fd, ports.data(), sizeof ports) == static_cast<ssize_t>(sizeof ports);
}

}  // namespace

bool EventChannel::notify() const {
    if (kind_ == Kind::xen) return false;  // an ioctl of the Xen port, which is not here yet
    static constexpr char event = 1;
    ssize_t written;
    do written = ::write(notify_.get(), &event, sizeof event);
    while (written < 0 && errno == EINTR);
    return written >= 0 || errno == EAGAIN;  // a full pipe: already pending
}

bool EventChannel::clear() const {
    if (kind_ == Kind::xen) return clear_xen(wait_.get());
    // A pipe of the size that the broker made is empty after one read. A peer may have filled or enlarged it: what is
    // left is one more spurious event, never a loop that the peer can keep going.
    std::array<std::byte, 4096> events;
    ssize_t got;
    do got = ::read(wait_.get(), events.data(), events.size());
    while (got < 0 && errno == EINTR);
    return got > 0;
}

void EventChannel::unmask() const {
    if (kind_ != Kind::xen) return;
    const std::uint32_t port = port_.raw;
    (void)!::write(wait_.get(), &port, sizeof port);
}

}  // namespace caisson
