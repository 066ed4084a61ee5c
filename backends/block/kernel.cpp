#include "backends/block/kernel.h"

#include <liburing.h>
#include <linux/falloc.h>
#include <sys/file.h>

namespace caisson::block::backend {
namespace {

class RingKernel final : public Kernel {
  public:
    RingKernel(Loop& loop, KernelAnswers& answers) : loop_(loop), answers_(answers) {}
    // Waits for the kernel: the frontend's pages are about to be unmapped.
    ~RingKernel() override { loop_.forget(answers_); }

    void read(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) override {
        io_uring_prep_readv(loop_.prepare(answers_, token), fd, parts.data(), static_cast<unsigned>(parts.size()),
                            offset);
    }
    void write(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) override {
        io_uring_prep_writev(loop_.prepare(answers_, token), fd, parts.data(), static_cast<unsigned>(parts.size()),
                             offset);
    }
    void sync_data(int fd, std::uint32_t token) override {
        io_uring_prep_fsync(loop_.prepare(answers_, token), fd, IORING_FSYNC_DATASYNC);
    }
    void punch_hole(int fd, std::uint64_t offset, std::uint64_t length, std::uint32_t token) override {
        io_uring_sqe* sqe = loop_.prepare(answers_, token);
        // Not io_uring_prep_fallocate(): some versions of it take the length as 32 bits.
        io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, fd, nullptr, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset);
        sqe->addr = length;
    }
    int try_lock(int fd, bool shared) override {
        return ::flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 ? 0 : errno;
    }

  private:
    Loop& loop_;
    KernelAnswers& answers_;
};

}  // namespace

std::unique_ptr<Kernel> make_ring_kernel(Loop& loop, KernelAnswers& answers) {
    return std::make_unique<RingKernel>(loop, answers);
}

}  // namespace caisson::block::backend
