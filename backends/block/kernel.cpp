#include "backends/block/kernel.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <sys/file.h>

namespace caisson::block::backend {
namespace {

int lock_now(int fd, bool shared) { return ::flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 ? 0 : errno; }

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
    void submit() override { loop_.submit_prepared(); }
    int try_lock(int fd, bool shared) override { return lock_now(fd, shared); }

  private:
    Loop& loop_;
    KernelAnswers& answers_;
};

class ImmediateKernel final : public Kernel {
  public:
    explicit ImmediateKernel(KernelAnswers& answers) : answers_(answers) {}
    bool immediate() const override { return true; }

    void read(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) override {
        answer(token, ::preadv(fd, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(offset)));
    }
    void write(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) override {
        answer(token, ::pwritev(fd, parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(offset)));
    }
    // There is nothing behind memory that it could be synced to.
    void sync_data(int, std::uint32_t token) override { answer(token, 0); }
    void punch_hole(int fd, std::uint64_t offset, std::uint64_t length, std::uint32_t token) override {
        answer(token, ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                                  static_cast<off_t>(length)));
    }
    int try_lock(int fd, bool shared) override { return lock_now(fd, shared); }

  private:
    // A transfer is at most max_indirect_segments pages: its bytes fit.
    void answer(std::uint32_t token, ssize_t result) {
        answers_.answered(token, result < 0 ? -errno : static_cast<int>(result));
    }
    KernelAnswers& answers_;
};

}  // namespace

std::unique_ptr<Kernel> make_ring_kernel(Loop& loop, KernelAnswers& answers) {
    return std::make_unique<RingKernel>(loop, answers);
}
std::unique_ptr<Kernel> make_immediate_kernel(KernelAnswers& answers) {
    return std::make_unique<ImmediateKernel>(answers);
}

}  // namespace caisson::block::backend
