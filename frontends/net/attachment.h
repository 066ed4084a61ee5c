// How the programs of the frontend's domain see the network device: something with a descriptor a queue, on which every
// message is a virtio-net header (10 bytes) and a whole Ethernet frame, both ways. A TAP speaks exactly this, and so
// does any datagram socket, so the data path knows only FramePort.
//
// An Attachment lives in the controller for as long as the device exists: it outlives workers and reconnects, so the
// interface, its address and its routes stay while the backend comes and goes.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "protocols/net.h"
#include "protocols/net_headers.h"
#include "ring/fd.h"

namespace caisson::net::frontend {

class Attachment {
  public:
    virtual ~Attachment() = default;

    // What frames taken from the attachment may ask of the other side, and how long they may be. May be called again.
    virtual Status configure(const Offloads& peer, std::uint32_t mtu) = 0;
    // The link, as `ip link` shows it. Down from the start.
    virtual Status carrier(bool up) = 0;
    // One descriptor a queue, `count` of them, non-blocking; those of an earlier call go back into the pool first. The
    // worker gets duplicates.
    virtual Result<std::vector<const Fd*>> queues(unsigned count) = 0;
};

// One queue of an attachment, in the worker. Threads: the device's.
class FramePort {
  public:
    explicit FramePort(Fd fd) : fd_(std::move(fd)) {}

    int wait_fd() const { return fd_.get(); }

    struct Taken {
        enum class What : std::uint8_t { nothing, frame, too_long, gone } what = What::nothing;
        std::uint32_t length = 0;
    };
    // The next frame, straight into `pages`, and its header. `pages` needs a first entry to spare, for the header, and
    // a last one, which tells a frame that does not fit from one that fits exactly. Never blocks.
    Taken take(VirtioHeader& header, std::span<iovec> pages) const;

    // `frame` needs a first entry to spare, for the header. False: the frame was dropped (full, down, or not believed
    // by the kernel), which is what networks do.
    bool give(const VirtioHeader& header, std::span<iovec> frame) const;

  private:
    Fd fd_;
};

}  // namespace caisson::net::frontend
