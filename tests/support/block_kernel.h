// A kernel for the file host that a test holds in its hands: does every call on a real file, but only when it is told
// to, in the order it likes, and with the results it likes.
#pragma once

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "backends/block/host_file.h"

namespace caisson::block::backend {

struct KernelCall {
    enum Kind { read, write, sync, punch } kind;
    int fd;
    std::span<const iovec> parts;
    std::uint64_t offset, length;
    std::uint32_t token;
};

// `fault(n, call)`: of the n-th call, counted from 0: a result instead of the call, or how much it may move at most.
struct Outcome {
    std::optional<int> result;
    std::size_t most = SIZE_MAX;
};

class HeldKernel final : public Kernel {
  public:
    explicit HeldKernel(KernelAnswers& answers) : answers_(answers) {}
    void read(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) override {
        calls.push_back({KernelCall::read, fd, parts, offset, 0, token});
    }
    void write(int fd, std::span<const iovec> parts, std::uint64_t offset, std::uint32_t token) override {
        calls.push_back({KernelCall::write, fd, parts, offset, 0, token});
    }
    void sync_data(int fd, std::uint32_t token) override { calls.push_back({KernelCall::sync, fd, {}, 0, 0, token}); }
    void punch_hole(int fd, std::uint64_t offset, std::uint64_t length, std::uint32_t token) override {
        calls.push_back({KernelCall::punch, fd, {}, offset, length, token});
    }
    int try_lock(int, bool) override { return locked_by_another ? EWOULDBLOCK : 0; }

    // Does one of the calls that wait.
    void step(std::size_t which = 0) {
        const KernelCall call = calls[which];
        calls.erase(calls.begin() + static_cast<std::ptrdiff_t>(which));
        const Outcome outcome = fault ? fault(done++, call) : Outcome{};
        answers_.answered(call.token, outcome.result ? *outcome.result : perform(call, outcome.most));
    }
    void run() {
        while (!calls.empty()) step();
    }

    std::deque<KernelCall> calls;
    std::function<Outcome(std::size_t, const KernelCall&)> fault;
    std::function<void(const KernelCall&)> performed;
    std::size_t done = 0;
    bool locked_by_another = false;

  private:
    int perform(const KernelCall& call, std::size_t most) {
        std::vector<iovec> parts;
        for (const iovec& part : call.parts) {
            parts.push_back({part.iov_base, std::min(part.iov_len, most)});
            most -= parts.back().iov_len;
        }
        const int count = static_cast<int>(parts.size());
        const auto at = static_cast<off_t>(call.offset);
        ssize_t moved = 0;
        if (call.kind == KernelCall::read) moved = ::preadv(call.fd, parts.data(), count, at);
        if (call.kind == KernelCall::write) moved = ::pwritev(call.fd, parts.data(), count, at);
        if (call.kind == KernelCall::punch)
            moved =
                ::fallocate(call.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(call.length));
        if (moved >= 0 && performed) performed(call);
        return moved < 0 ? -errno : static_cast<int>(moved);
    }
    KernelAnswers& answers_;
};

// Who was answered, and with what; every tag once.
struct Answers final : Completions {
    void done(Tag tag, int error) override {
        if (!errors.emplace(tag.raw, error).second) ++twice;
        if (heard) heard(tag, error);
    }
    std::map<std::uint32_t, int> errors;
    std::function<void(Tag, int)> heard;
    unsigned twice = 0;
};

// A file host over a file in memory, and its kernel.
struct HeldDisk {
    static constexpr std::uint64_t bytes = 1 << 20;
    HeldDisk() : file(::memfd_create("disk", MFD_CLOEXEC)) {
        (void)!::ftruncate(file.get(), bytes);
        Geometry geometry{.sectors = bytes / wire_sector};
        host = std::make_unique<FileHost>(
            *file.duplicate(), FileHost::Options{.geometry = geometry, .shared_lock = false},
            [this](KernelAnswers& to) {
                auto made = std::make_unique<HeldKernel>(to);
                kernel = made.get();
                return made;
            },
            answers, log);
        (void)host->ready();
    }
    void submit(std::uint32_t tag, Operation operation, std::uint64_t offset, std::span<std::byte> data) {
        host->submit(
            {.tag = Tag(tag), .operation = operation, .offset = offset, .length = data.size(), .bounced = data});
    }
    Fd file;
    Answers answers;
    Log log{"test"};
    HeldKernel* kernel = nullptr;
    std::unique_ptr<FileHost> host;
};

}  // namespace caisson::block::backend
