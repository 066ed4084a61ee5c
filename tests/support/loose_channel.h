// An event channel's two ends without a hypervisor: a pipe each way, as the local port makes them.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "ring/event_channel.h"

namespace caisson::test {

struct LooseChannel {
    EventChannel ours, theirs;
    static LooseChannel make() {
        int one[2], two[2];
        if (::pipe2(one, O_CLOEXEC | O_NONBLOCK) != 0 || ::pipe2(two, O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
        return {EventChannel(EventChannel::Kind::local, DomainId(2), Port(1), Fd(one[0]), Fd(two[1])),
                EventChannel(EventChannel::Kind::local, DomainId(1), Port(1), Fd(two[0]), Fd(one[1]))};
    }
};

}  // namespace caisson::test
