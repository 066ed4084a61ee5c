#include "backends/block/host_file.h"

#include <liburing.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>

namespace caisson::block::backend {

using namespace std::chrono_literals;

namespace {
constexpr auto complain_after = 10s;
constexpr unsigned most_fruitless = 100;
}  // namespace

void allow_file_host(WorkerPolicy& policy) {
    for (const int call : {SYS_flock, SYS_preadv, SYS_pwritev, SYS_fallocate}) policy.system_calls.push_back(call);
    for (const std::uint8_t operation : {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE})
        policy.operations.push_back(operation);
    // A worker is sealed before it is known which disk it will get.
    policy.max_file_size = RLIM_INFINITY;
}

Result<std::unique_ptr<Host>> make_file_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                             Completions& completions) {
    Fd file = TRY(handover.fd());
    return std::make_unique<FileHost>(
        std::move(file),
        FileHost::Options{.geometry = config.geometry,
                          .shared_lock = config.shared_target || config.geometry.read_only()},
        [&loop = context.loop, immediate = config.in_memory](KernelAnswers& answers) {
            return immediate ? make_immediate_kernel(answers) : make_ring_kernel(loop, answers);
        },
        completions, context.log);
}

FileHost::FileHost(Fd file, Options options, const MakeKernel& kernel, Completions& completions, Log& log)
    : file_(std::move(file)),
      geometry_(options.geometry),
      shared_lock_(options.shared_lock),
      completions_(completions),
      log_(log),
      kernel_(kernel(*this)) {}

bool FileHost::ready() {
    if (locked_) return true;
    const int error = kernel_->try_lock(file_.get(), shared_lock_);
    locked_ = error == 0;
    if (!locked_ && Loop::Clock::now() - since_ > complain_after && !std::exchange(complained_, true))
        log_.say(error == EWOULDBLOCK ? "the disk's file is still locked: another disk or program uses it, or the "
                                        "storage below it does not answer what a worker that died has asked"
                                      : std::string("the disk's file cannot be locked: ") + std::strerror(error));
    return locked_;
}

void FileHost::submit(const Io& io) {
    if (free_.empty()) {
        free_.push_back(static_cast<std::uint32_t>(works_.size()));
        works_.push_back(std::make_unique<Work>());
    }
    const std::uint32_t token = free_.back();
    free_.pop_back();
    Work& work = *works_[token];
    work.tag = io.tag;
    work.operation = io.operation;
    work.offset = io.offset;
    work.left = io.length;
    work.first = 0;
    work.fruitless = 0;
    work.parts.clear();
    for (const SharedSpan& span : io.shared) work.parts.push_back(span.for_kernel());
    if (!io.bounced.empty()) work.parts.push_back({io.bounced.data(), io.bounced.size()});
    start(token);
}

void FileHost::start(std::uint32_t token) {
    const Work& work = *works_[token];
    const auto parts = std::span(work.parts).subspan(work.first);
    switch (work.operation) {
        case Operation::read: return kernel_->read(file_.get(), parts, work.offset, token);
        case Operation::write: return kernel_->write(file_.get(), parts, work.offset, token);
        case Operation::discard: return kernel_->punch_hole(file_.get(), work.offset, work.left, token);
        case Operation::flush:
        case Operation::barrier: return kernel_->sync_data(file_.get(), token);
    }
}

void FileHost::answered(std::uint32_t token, int result) {
    Work& work = *works_[token];
    if ((result == -EINTR || result == -EAGAIN) && ++work.fruitless < most_fruitless) return start(token);
    if (result < 0) return finish(token, -result);
    if (work.operation != Operation::read && work.operation != Operation::write) return finish(token, 0);
    // Nothing moved and no error: a file that became shorter than the disk, or a kernel that would have us ask forever.
    if (result == 0 && work.left > 0) return finish(token, EIO);
    advance(work, static_cast<std::size_t>(result));
    work.fruitless = 0;
    if (work.left == 0) return finish(token, 0);
    start(token);
}

// Short I/O: the rest is asked for again. The kernel never moves more than it was given.
void FileHost::advance(Work& work, std::size_t bytes) {
    bytes = std::min<std::size_t>(bytes, work.left);
    work.offset += bytes;
    work.left -= bytes;
    while (bytes > 0 && work.first < work.parts.size()) {
        iovec& part = work.parts[work.first];
        const std::size_t step = std::min(bytes, part.iov_len);
        part.iov_base = static_cast<char*>(part.iov_base) + step;
        part.iov_len -= step;
        bytes -= step;
        if (part.iov_len == 0) ++work.first;
    }
}

void FileHost::finish(std::uint32_t token, int error) {
    const Tag tag = works_[token]->tag;
    free_.push_back(token);
    completions_.done(tag, error);
}

}  // namespace caisson::block::backend
