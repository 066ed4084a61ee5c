// The frontend of a disk: the guest's half of "vbd", against any backend that speaks xen/io/blkif.h.
//
//   block.h          this: the class half, and what an embedding program may choose
//   disk.h           a disk in the program's own process: what most programs want
//   control.cpp      in the controller: negotiation, keys, pages     features.h   what a backend says, checked
//   worker.cpp       in the worker: a data path and an attachment on the loop
//   data_path.h      requests onto rings, answers back     requests.h   the in-flight table     queue.h   one ring
//   page_pool.h      pages of the arena                    journal.h    what outlives workers and connections
//   attachment.h     how programs see it: attachment_nbd.h (a block device), attachment_fuse.h (one file that is the
//   disk)
//
// What only this folder uses is in caisson::block::frontend.
//
// It trusts its backend as little as a backend trusts it: every answer must match something outstanding, once; only
// pages that hold nothing but this disk's data are ever shared; the first broken rule closes the device until it
// reconnects. Nobody who uses the disk notices that, or a backend's death: what is unanswered is issued again.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "frontends/block/attachment.h"
#include "protocols/block.h"
#include "ring/device.h"

namespace caisson::block {

struct FrontendOptions {
    // At most; the backend may offer fewer. One thread serves them all, so more than one pays off only where the other
    // side has threads for them.
    unsigned queues = 1;
    unsigned ring_order = 2;           // at most: 2^order pages a ring, 32 requests each page
    std::uint32_t arena_pages = 1024;  // of data that may be in flight; fewer when the hypervisor gives no more
    bool persistent = true;            // let the backend keep the arena mapped
    // Opened once a device. Empty: none, the disk is there for a program that holds the controller's Handover.
    std::function<Result<std::unique_ptr<frontend::Attachment>>(ControlContext&)> attachment = {};
};

std::unique_ptr<DeviceControl> make_frontend_control(FrontendOptions options);

// A row of the catalogue: open_attachment() (attachment.h), default options.
ClassHalf frontend_half();

}  // namespace caisson::block
