#include "ring/event_channel.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>

using domid_t = std::uint16_t;  // xen/evtchn.h of Linux takes it from its includer
#include <xen/evtchn.h>

namespace caisson {

namespace {

// /dev/xen/evtchn: a read gives pending ports and masks them, a write unmasks them (xen/evtchn.h of Linux). One open
// file a channel, so there is one port to read.
bool clear_xen(int fd) {
    std::uint32_t port;
    return ::read(fd, &port, sizeof port) == static_cast<ssize_t>(sizeof port);
}

}  // namespace

bool EventChannel::notify() const {
    if (kind_ == Kind::xen) {
        ioctl_evtchn_notify request{.port = port_.raw};
        return ::ioctl(wait_.get(), IOCTL_EVTCHN_NOTIFY, &request) == 0;
    }
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
