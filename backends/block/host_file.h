// A regular file or a raw block device, through the worker's io_uring: nothing is read or written with the processor,
// the frontend's pages go to the kernel in place. A file in memory (tmpfs) is read and written by plain system calls:
// io_uring would wake a thread of its own for each of its requests, which costs more than the copy.
//
// The lock. A worker's descriptor is an open file description of its own (target.h), and the first thing done with it
// is flock(LOCK_EX): LOCK_SH where the disk is read-only or shared. The lock of a worker that died is released when the
// last reference to *its* description is gone, and a request that io_uring has not finished holds one. So "we have the
// lock" means "no write of the dead worker can still reach the file", and nothing may be read, written or answered
// before: ready() says so. (That is also why the file is not registered with io_uring: a registered file is only let go
// when the whole ring is taken down, long after the last request. Nor is memory: data goes to and from the frontend's
// pages in place, granted pages cannot be registered (gntdev: EOPNOTSUPP), and they come and go while a sealed worker's
// ring takes no registration; private memory is for the few requests whose pages are not mapped.)
// The same lock keeps two disks from writing one file.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "backends/block/config.h"
#include "backends/block/host.h"
#include "backends/block/kernel.h"
#include "ring/device.h"
#include "ring/fd.h"

namespace caisson::block::backend {

// What this host does in a sealed worker, beyond the base list.
void allow_file_host(WorkerPolicy& policy);

// Reads its part of the handover. `completions` outlives the host.
Result<std::unique_ptr<Host>> make_file_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                             Completions& completions);

class FileHost final : public Host, private KernelAnswers {
  public:
    struct Options {
        Geometry geometry;
        bool shared_lock = false;
    };
    // For tests: with a kernel of their own. It is made with what shall hear its answers.
    using MakeKernel = std::function<std::unique_ptr<Kernel>(KernelAnswers&)>;
    FileHost(Fd file, Options options, const MakeKernel& kernel, Completions& completions, Log& log);

    bool ready() override;
    Geometry geometry() const override { return geometry_; }
    bool immediate() const override { return kernel_->immediate(); }
    void submit(const Io& io) override;
    void flush_batch() override { kernel_->submit(); }
    void resized(std::uint64_t sectors) override { geometry_.sectors = sectors; }
    std::size_t pending() const override { return works_.size() - free_.size(); }

  private:
    // An Io that is not done. `parts` are what is left of it from `first` on; the memory is kept from one to the next.
    struct Work {
        Tag tag{};
        Operation operation = Operation::read;
        std::uint64_t offset = 0, left = 0;
        std::vector<iovec> parts;
        std::size_t first = 0;
        unsigned fruitless = 0;  // interruptions in a row
    };

    void answered(std::uint32_t token, int result) override;
    void start(std::uint32_t token);
    void advance(Work& work, std::size_t bytes);
    void finish(std::uint32_t token, int error);

    Fd file_;
    Geometry geometry_;
    bool shared_lock_ = false, locked_ = false, complained_ = false;
    Loop::Clock::time_point since_ = Loop::Clock::now();
    Completions& completions_;
    Log& log_;
    std::vector<std::unique_ptr<Work>> works_;  // by token; stable, the kernel reads `parts`
    std::vector<std::uint32_t> free_;
    std::unique_ptr<Kernel> kernel_;  // ends first: it waits for what the kernel still does
};

}  // namespace caisson::block::backend
