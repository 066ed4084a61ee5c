// A disk in memory: a memfd that the controller keeps, so that its content outlives the worker.
#pragma once

#include <memory>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "ring/device.h"
#include "ring/fd.h"

namespace caisson::block::backend {

class MemoryHost final : public Host {
  public:
    // Reads its part of the handover. `completions` outlives the host.
    static Result<std::unique_ptr<Host>> make(const Config& config, HandoverReader& handover, Completions& completions);
    ~MemoryHost() override;

    Geometry geometry() const override { return geometry_; }
    bool immediate() const override { return true; }
    void submit(const Io& io) override { completions_.done(io.tag, move(io)); }
    void resized(std::uint64_t sectors) override;
    std::size_t pending() const override { return 0; }

  private:
    MemoryHost(Fd file, const Geometry& geometry, Completions& completions)
        : file_(std::move(file)), geometry_(geometry), completions_(completions) {}
    Status map(std::uint64_t sectors);
    int move(const Io& io);
    int discard(const Io& io);

    Fd file_;
    Geometry geometry_;
    Completions& completions_;
    std::span<std::byte> memory_;
};

}  // namespace caisson::block::backend
