// What control and worker agree on for one connection: the first value of the Handover. After it: the Kept
// memory; the arena; the pages of segments; for each queue its ring and its channel; the attachment's descriptor, if
// there is one. The handover's journal is a ConnectionJournal. What the disk is (Features) comes as updates, and stands
// in the Kept memory for a successor.
#pragma once

#include "frontends/block/attachment.h"
#include "frontends/block/data_path.h"
#include "ring/device.h"

namespace caisson::block::frontend {

struct Link {
    std::uint32_t queues = 1;
    std::uint32_t arena_pages = 0;
    Attachment::Kind attachment = Attachment::Kind::none;
};

// What outlives a connection, in one piece of memory. `features` is written by the controller, which never reads
// anything of it back; `sequence` is odd while it writes.
struct Kept {
    std::uint32_t sequence = 0;
    Features features;
    DiskJournal disk;
};
static_assert(std::is_trivially_copyable_v<Kept>);

// Shared memory of this domain's own processes, of a size that nobody can change.
class KeptMemory {
  public:
    static Result<KeptMemory> make();
    static Result<KeptMemory> map(Fd memory);
    KeptMemory(KeptMemory&& other) noexcept : fd_(std::move(other.fd_)), base_(std::exchange(other.base_, nullptr)) {}
    KeptMemory& operator=(KeptMemory&& other) noexcept {
        std::swap(fd_, other.fd_), std::swap(base_, other.base_);
        return *this;
    }
    ~KeptMemory();

    Kept& operator*() const { return *base_; }
    Kept* operator->() const { return base_; }
    const Fd& fd() const { return fd_; }

    // The controller's side: a whole Features at any time, or none that says connected.
    void write(const Features& features) const;
    Features read() const;

  private:
    KeptMemory(Fd fd, Kept* base) : fd_(std::move(fd)), base_(base) {}
    Fd fd_;
    Kept* base_ = nullptr;
};

// One connection, taken over by whoever serves it: a worker, or a program with the data path in its own thread. The
// order of the handover: read_link(), the Kept memory, take_over().
struct TakenOver {
    std::unique_ptr<DataPath> path;
    Fd attachment;
};
Result<Link> read_link(HandoverReader& handover);
Result<TakenOver> take_over(const Link& link, HandoverReader& handover, Hypervisor& hypervisor, Requests& requests,
                            ConnectionJournal& journal, DeviceStats& stats, unsigned patience);

}  // namespace caisson::block::frontend
