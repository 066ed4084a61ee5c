// Frames for a program instead of an interface: a pair of datagram sockets a queue. For vendors who bring their own
// network stack, and for tests. The program's end speaks what a TAP speaks: a virtio-net header, then the frame.
#pragma once

#include "frontends/net/attachment.h"

namespace caisson::net::frontend {

// The ends that the program keeps, one a queue. They stay good over reconnects of the device.
struct SocketEnds {
    std::vector<Fd> queue;
    bool up = false;  // the carrier
    Offloads peer;    // what frames may ask for
    std::uint32_t mtu = default_mtu;
};

// `ends` is filled here with `queues` ends and must outlive the attachment. A device gets at most so many queues.
Result<std::unique_ptr<Attachment>> open_sockets(SocketEnds& ends, unsigned queues);

}  // namespace caisson::net::frontend
