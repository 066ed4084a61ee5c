// How the programs of the frontend's domain see the disk. An Attachment lives in the controller for as long as the
// device exists: it outlives workers and reconnects, so that a file that is open on the disk stays open; programs wait
// while the backend is away. Its other half, an AttachmentServer (attachment_server.h), lives in the worker.
#pragma once

#include <memory>

#include "frontends/block/features.h"
#include "ring/device.h"
#include "ring/fd.h"

namespace caisson::block::frontend {

// Ours, in the frontend's directory, written by the toolstack: "nbd" or "fuse", and no other. Absent: the first of them
// that this domain can have.
inline constexpr std::string_view attachment_key = "attachment";

class Attachment {
  public:
    // What the worker speaks on the descriptor.
    enum class Kind : std::uint8_t { none, fuse, nbd };

    virtual ~Attachment() = default;
    virtual Kind kind() const = 0;
    // What the worker speaks its protocol on; lent. It gets a duplicate, and so does its successor.
    virtual const Fd& descriptor() const = 0;
    // Both sides are Connected, and again whenever the disk has changed its size. Before the worker serves it.
    virtual Status connected(const Geometry& disk) = 0;
};

// As the toolstack asks, or the best there is: the kernel's nbd (attachment_nbd.h), or a file (attachment_fuse.h).
Result<std::unique_ptr<Attachment>> open_attachment(ControlContext& context);

// "/dev/xvda" for device 51712.
std::string file_of(DeviceId device);

}  // namespace caisson::block::frontend
