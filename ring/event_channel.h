// One end of an interdomain event channel, bound or waiting to be bound.
//
// An event is a hint, not a message: any number of notifies before the other side looks become one. Correctness may
// depend only on what the ring says.
//
// Local port: a pipe in each direction. The two ends of a pipe are different open files, so a hostile peer can neither
// clear our O_NONBLOCK nor make our write block, as it could with a shared eventfd; a full pipe means "already
// pending". Xen port: /dev/xen/evtchn, one open file a channel.
//
// Threads: belongs to the thread that owns the device. Nothing here blocks.
#pragma once

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson {

class EventChannel {
  public:
    enum class Kind : std::uint8_t { local, xen };

    EventChannel() = default;
    EventChannel(Kind kind, DomainId peer, Port port, Fd wait, Fd notify)
        : kind_(kind), peer_(peer), port_(port), wait_(std::move(wait)), notify_(std::move(notify)) {}

    explicit operator bool() const { return static_cast<bool>(wait_); }
    Kind kind() const { return kind_; }
    DomainId peer() const { return peer_; }
    Port port() const { return port_; }  // ours: what goes into xenstore's event-channel

    // Wakes the other side. Never blocks; false when nobody holds the other end now: the peer closed its port, or died.
    // On the local port SIGPIPE must be ignored in this process; opening a Hypervisor does that.
    bool notify() const;

    // The descriptor to poll for POLLIN; POLLHUP without POLLIN means that the peer's end is closed.
    int wait_fd() const { return wait_.get(); }
    int notify_fd() const { return notify_.get(); }

    // Takes the pending event, if any; the channel stays masked (Xen) until unmask(). False when none was pending.
    bool clear() const;
    // After the work is done, never before (XSA-332). Nothing to do on the local port.
    void unmask() const;

  private:
    Kind kind_ = Kind::local;
    DomainId peer_{};
    Port port_{};
    Fd wait_, notify_;
};

}  // namespace caisson
