// An NBD server (nbdkit, qemu-nbd): images of any format without a line of code here that reads one.
//
// The controller has connected and shaken hands (nbd_server.h). Spoken here is what is left, the transmission phase
// with simple replies, all numbers big-endian:
//
//   request  magic u32 0x25609513, flags u16, command u16, cookie u64, offset u64, length u32 [, data of a write]
//   reply    magic u32 0x67446698, error u32, cookie u64 [, data of a read without error]
//
// Source: doc/proto.md of the NBD project. Requests go out one after the other, replies come in any order; payload goes
// between the socket and the frontend's pages by the kernel. A server that sends a reply to nothing, or ends, has
// broken the connection: everything in flight and everything after is answered with EIO, nothing hangs. The controller
// connects anew when the device connects again.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "ring/device.h"

namespace caisson::block::backend {

// What this host does in a sealed worker, beyond the base list.
void allow_nbd_host(WorkerPolicy& policy);

// Reads its part of the handover. `completions` outlives the host.
Result<std::unique_ptr<Host>> make_nbd_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                            Completions& completions);

}  // namespace caisson::block::backend
