// A TAP in the network namespace of whoever opens it: `eth0` in a guest. Needs /dev/net/tun and CAP_NET_ADMIN in the
// user namespace that owns the network namespace.
//
// Multi-queue, with virtio-net headers, so that frames of 64 KiB cross whole. Source: Linux, Documentation/networking/
// tuntap.rst and drivers/net/tun.c.
#pragma once

#include <string>

#include "frontends/net/attachment.h"

namespace caisson::net::frontend {

struct TapOptions {
    std::string name;        // "eth0"
    std::optional<Mac> mac;  // none: the kernel makes one up
};

// The interface exists, without a carrier, as long as the Attachment does. A person's `ip` commands on it are
// respected: nothing here brings it up or gives it an address.
Result<std::unique_ptr<Attachment>> open_tap(const TapOptions& options);

}  // namespace caisson::net::frontend
