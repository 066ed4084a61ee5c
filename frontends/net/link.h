// What control and worker agree on for one connection: the first value of the Handover. After it, for each queue: the
// attachment's descriptor, the tx ring, the rx ring, one event channel or (split) two; then, with a control ring, that
// ring and its channel.
#pragma once

#include "protocols/net.h"

namespace caisson::net::frontend {

struct Link {
    std::uint32_t queues = 1;
    std::uint32_t largest = max_packet;  // frame the backend may be sent
    Offloads peer;                       // what the backend takes
    bool split_channels = false;
    bool receive_hash = false;
    bool dynamic_multicast = false;  // the filter may be switched while connected
};

}  // namespace caisson::net::frontend
