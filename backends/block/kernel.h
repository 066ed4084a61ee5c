// What the file host asks of the kernel, one call each: the worker's io_uring, plain system calls, or a test
// that lets the k-th one fail.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

#include "ring/loop.h"

namespace caisson::block::backend {

// Answers come through KernelAnswers: bytes moved or 0, or a negative errno; exactly one a request.
class Kernel {
  public:
    virtual ~Kernel() = default;
    // Each answer comes before the call returns.
    virtual bool immediate() const { return false; }
    // `parts` stay until the answer.
    virtual void read(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) = 0;
    virtual void write(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) = 0;
    virtual void sync_data(int fd, std::uint32_t token) = 0;
    virtual void punch_hole(int fd, std::uint64_t offset, std::uint64_t length, std::uint32_t token) = 0;
    // What was asked for since goes to the disk now; without this, when the turn ends.
    virtual void submit() {}
    // 0 or an errno; at once, never waits.
    virtual int try_lock(int fd, bool shared) = 0;
};

// The worker's own io_uring. `answers` hears nothing after this object is gone.
std::unique_ptr<Kernel> make_ring_kernel(Loop& loop, KernelAnswers& answers);
// System calls that answer before they return: for files in memory, which io_uring would hand to a thread of its own.
std::unique_ptr<Kernel> make_immediate_kernel(KernelAnswers& answers);

}  // namespace caisson::block::backend
