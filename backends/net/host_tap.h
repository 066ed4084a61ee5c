// A TAP interface in the driver domain, one descriptor a queue, with virtio-net headers: packets of 64 KiB cross whole.
// The controller made and configured it (tap_interface.h); the worker only reads and writes.
#pragma once

#include <memory>
#include <vector>

#include "backends/net/host.h"
#include "ring/fd.h"
#include "ring/handover.h"

namespace caisson::net::backend {

// One packet. False when the kernel did not take it.
bool write_frame(int tap, const Frame& frame);
// One packet with its virtio header. 0: nothing there; `gone` is set when there never will be.
std::size_t read_frame(int tap, std::span<const iovec> room, bool& gone);

class TapHost final : public Host {
  public:
    static Result<std::unique_ptr<Host>> make(unsigned queues, HandoverReader& handover);

    bool send(unsigned queue, const Frame& frame) override { return write_frame(queues_[queue].get(), frame); }
    std::size_t receive(unsigned queue, std::span<const iovec> room) override {
        return read_frame(queues_[queue].get(), room, gone_);
    }
    int readable_fd(unsigned queue) const override { return gone_ ? -1 : queues_[queue].get(); }

  private:
    std::vector<Fd> queues_;
    bool gone_ = false;  // the interface was deleted under us
};

}  // namespace caisson::net::backend
