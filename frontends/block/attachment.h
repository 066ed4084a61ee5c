// How the programs of the frontend's domain see the disk. An Attachment lives in the controller for as long as the
// device exists: it outlives workers and reconnects, so that a file that is open on the disk stays open; programs wait
// while the backend is away.
#pragma once

#include <memory>

#include "frontends/block/features.h"
#include "ring/fd.h"

namespace caisson::block::frontend {

class Attachment {
  public:
    virtual ~Attachment() = default;
    // What the worker speaks its protocol on; lent. It gets a duplicate, and so does its successor.
    virtual const Fd& descriptor() const = 0;
    // Both sides are Connected, and again whenever the disk has changed its size. Before the worker serves it.
    virtual Status connected() = 0;
};

}  // namespace caisson::block::frontend
