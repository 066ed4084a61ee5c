// The disk as a block device of the kernel, /dev/nbdN, that has the name which the user expects: /dev/xvda is a link to
// it. It is mounted and partitioned like any disk. For a domain with a kernel of its own that has the nbd module.
//
// The controller makes a pair of sockets, gives one to the kernel's nbd driver and lends the other to the worker, which
// answers the driver's requests (nbd_server.h). They stay while workers and backends come and go: programs wait.
#pragma once

#include <string>

#include "frontends/block/attachment.h"

namespace caisson::block::frontend {

// ENOENT: no nbd here; EPERM: not for us. The device comes when the disk is connected for the first time; it and its
// name go when this is destroyed, and everything of its users that is in flight ends with an error.
Result<std::unique_ptr<Attachment>> open_nbd(const std::string& path);

// The two ends: ours and the driver's.
struct NbdSockets {
    Fd ours, drivers;
    static Result<NbdSockets> make();
};

}  // namespace caisson::block::frontend
