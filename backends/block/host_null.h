// The host that does nothing: every write is taken, and a read leaves the frontend's pages as they are. What is left is
// the cost of the ring.
#pragma once

#include "backends/block/host.h"

namespace caisson::block::backend {

class NullHost final : public Host {
  public:
    NullHost(const Geometry& geometry, Completions& completions) : geometry_(geometry), completions_(completions) {}

    Geometry geometry() const override { return geometry_; }
    bool immediate() const override { return true; }
    std::uint32_t batch() const override { return 16; }
    void submit(const Io& io) override {
        // Private memory is copied to the frontend afterwards, and must hold nothing of anybody else's (XSA-403).
        if (io.operation == Operation::read) std::fill(io.bounced.begin(), io.bounced.end(), std::byte{});
        completions_.done(io.tag, 0);
    }
    void resized(std::uint64_t sectors) override { geometry_.sectors = sectors; }
    std::size_t pending() const override { return 0; }

  private:
    Geometry geometry_;
    Completions& completions_;
};

}  // namespace caisson::block::backend
