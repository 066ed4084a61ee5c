#include "frontends/block/disk_c.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "frontends/block/disk.h"

using caisson::Error;
using caisson::page_size;
using caisson::Result;
using caisson::block::Disk;
using caisson::block::OpenDisk;
using caisson::block::Operation;

namespace {

constexpr std::size_t run_bytes = std::size_t{128} * page_size;  // Disk::buffer() gives no larger ones
constexpr unsigned turn_every = 256;                             // polls without a look at the loop

// The one place where a program is given an address of shared memory: it asked for data that nobody copies, and knows
// that the backend can change it. Pages of the arena at addresses of our own. A reconnect maps other pages elsewhere;
// then these addresses get those, with the content that they had.
class Window {
  public:
    Window() = default;
    Window(const Window&) = delete;
    ~Window() {
        if (bytes_ != 0) ::munmap(at_, bytes_);
    }
    explicit operator bool() const { return bytes_ != 0; }
    void* at() const { return at_; }

    int open(Disk& disk, std::size_t bytes) {
        int error = take_pages(disk, bytes);
        if (error == 0) error = place(disk);
        if (error == 0) return 0;
        for (const auto& run : runs_) disk.give_back(run);
        runs_.clear();
        pages_ = {};
        return error;
    }

    // `length` bytes at `data`, as a Buffer of the disk, if they lie here and start on a page.
    std::optional<Disk::Buffer> buffer(const void* data, std::uint64_t length) const {
        const auto offset = reinterpret_cast<std::uintptr_t>(data) - reinterpret_cast<std::uintptr_t>(at_);
        if (offset % page_size != 0 || !caisson::fits<std::uint64_t>(offset, length, bytes_) || lost_)
            return std::nullopt;
        return Disk::Buffer{static_cast<std::uint16_t>(pages_.first + offset / page_size),
                            static_cast<std::uint32_t>((length + page_size - 1) / page_size)};
    }

    // After a turn of the loop. The data of requests in flight is the library's to bring over, and is there already.
    void follow(Disk& disk) {
        const auto now = disk.memory(pages_);
        if (lost_ || now.empty() || now.for_kernel().iov_base == source_) return;
        for (std::size_t page = 0; page < pages_.pages; ++page)
            if (!in_flight_[page]) carry(now, page);
        lost_ = place(disk) != 0;
    }
    // The kernel refused the new pages. Ours are good memory still, but no backend's: what was in flight has failed,
    // and from here on everything is copied.
    bool lost() const { return lost_; }
    void busy(const Disk::Buffer& buffer, bool busy) {
        std::fill_n(in_flight_.begin() + (buffer.first - pages_.first), buffer.pages, std::uint8_t{busy});
    }

  private:
    // Runs that are neighbours: the arena of a new disk is empty, and is given out from its far end.
    int take_pages(Disk& disk, std::size_t bytes) {
        while (bytes > 0) {
            const auto run = disk.buffer(std::min(bytes, run_bytes));
            if (!run) return run.error().err;
            runs_.push_back(*run);
            if (runs_.size() > 1 && run->first + run->pages != pages_.first) return ENOSPC;
            pages_ = {run->first, pages_.pages + run->pages};
            bytes -= std::min(bytes, run->pages * page_size);
        }
        in_flight_.assign(pages_.pages, 0);
        return 0;
    }

    // The same pages once more, at our addresses: mremap(2), "if old_size is zero", which private memory and pages of
    // another domain on real Xen (VM_DONTEXPAND) refuse.
    int place(Disk& disk) {
        const auto source = disk.memory(pages_).for_kernel();
        if (source.iov_len == 0) return EAGAIN;
        const bool first = bytes_ == 0;
        void* placed = ::mremap(source.iov_base, 0, source.iov_len, MREMAP_MAYMOVE | (first ? 0 : MREMAP_FIXED), at_);
        if (placed == MAP_FAILED) return EOPNOTSUPP;
        at_ = placed;
        bytes_ = source.iov_len;
        source_ = source.iov_base;
        return 0;
    }

    void carry(const caisson::SharedSpan& now, std::size_t page) const {
        const std::size_t offset = page * page_size;
        (void)now.copy_in(offset, std::span(static_cast<const std::byte*>(at_) + offset, page_size));
    }

    std::vector<Disk::Buffer> runs_;
    Disk::Buffer pages_;
    std::vector<std::uint8_t> in_flight_;  // by page
    void* at_ = nullptr;
    void* source_ = nullptr;
    std::size_t bytes_ = 0;
    bool lost_ = false;
};

}  // namespace

struct caisson_disk {
    struct Waiting {
        std::uint64_t cookie = 0;
        Disk::Buffer buffer;
    };

    OpenDisk opened;
    Window window;
    std::vector<Waiting> waiting;        // by our cookie: what the window has to know
    std::vector<std::uint32_t> free;     // of waiting
    std::vector<caisson_disk_end> left;  // ends that a caller had no room for
    unsigned polls = 0;

    int submit(const caisson_disk_request& asked);
    unsigned take(caisson_disk_end* ends, unsigned most);
    void turn(std::chrono::milliseconds wait);
};

int caisson_disk::submit(const caisson_disk_request& asked) {
    static constexpr Operation operations[] = {Operation::read, Operation::write, Operation::flush, Operation::discard};
    const bool data = asked.operation == CAISSON_DISK_READ || asked.operation == CAISSON_DISK_WRITE;
    if (free.empty()) {
        free.push_back(static_cast<std::uint32_t>(waiting.size()));
        waiting.emplace_back();
    }
    const std::uint32_t slot = free.back();
    Disk::Request request{
        .operation = operations[asked.operation], .offset = asked.offset, .length = asked.length, .cookie = slot};
    if (data && window) request.buffer = window.buffer(asked.data, asked.length);
    if (data && !request.buffer) request.data = {static_cast<std::byte*>(asked.data), asked.length};
    if (const int error = opened.disk->submit(request); error != 0) return error;
    free.pop_back();
    waiting[slot] = {asked.cookie, request.buffer.value_or(Disk::Buffer{})};
    if (request.buffer) window.busy(*request.buffer, true);
    return 0;
}

unsigned caisson_disk::take(caisson_disk_end* ends, unsigned most) {
    unsigned count = 0;
    while (count < most && !left.empty()) {
        ends[count++] = left.back();
        left.pop_back();
    }
    if (count == most) return count;
    opened.disk->poll([&](std::uint64_t cookie, int error) {
        const Waiting& one = waiting[cookie];
        const bool windowed = one.buffer.pages != 0;
        if (windowed) window.busy(one.buffer, false);
        const caisson_disk_end end{one.cookie, windowed && window.lost() ? EIO : error};
        if (count < most)
            ends[count++] = end;
        else
            left.push_back(end);
        free.push_back(static_cast<std::uint32_t>(cookie));
    });
    return count;
}

void caisson_disk::turn(std::chrono::milliseconds wait) {
    polls = 0;
    opened.loop->turn(wait);
    if (window && opened.disk->connected()) window.follow(*opened.disk);
}

extern "C" {

int caisson_disk_open(const char* name, const caisson_disk_options* options, caisson_disk** disk, char* why,
                      size_t why_size) {
    Disk::Options wanted;
    if (options != nullptr) {
        if (options->queues != 0) wanted.queues = options->queues;
        if (options->ring_order != 0) wanted.ring_order = options->ring_order;
        if (options->arena_bytes != 0) wanted.arena_pages = (options->arena_bytes + page_size - 1) / page_size;
        if (options->timeout_ms != 0) wanted.timeout = std::chrono::milliseconds(options->timeout_ms);
    }
    auto opened = caisson::block::open_disk(name, wanted);
    if (!opened) {
        const Error& error = opened.error();
        if (why != nullptr) std::snprintf(why, why_size, "%s", error.message().c_str());
        return error.err != 0 ? error.err : EPROTO;
    }
    auto owned = std::make_unique<caisson_disk>();
    owned->opened = std::move(*opened);
    *disk = owned.release();
    return 0;
}

void caisson_disk_close(caisson_disk* disk) { delete disk; }

void caisson_disk_get_geometry(const caisson_disk* disk, caisson_disk_geometry* geometry) {
    const auto& known = disk->opened.disk->geometry();
    *geometry = {.bytes = known.bytes(),
                 .largest_request = disk->opened.disk->largest_request(),
                 .sector_size = known.sector_size,
                 .physical_sector_size = known.physical_sector_size,
                 .discard_granularity = known.discard ? known.discard_granularity : 0,
                 .read_only = known.read_only(),
                 .flush = known.flush};
}

int caisson_disk_memory(caisson_disk* disk, size_t bytes, void** memory) {
    if (disk->window) return EBUSY;
    if (const int error = disk->window.open(*disk->opened.disk, bytes); error != 0) return error;
    *memory = disk->window.at();
    return 0;
}

int caisson_disk_submit(caisson_disk* disk, const caisson_disk_request* request) { return disk->submit(*request); }
void caisson_disk_doorbell(caisson_disk* disk) { disk->opened.disk->doorbell(); }

unsigned caisson_disk_poll(caisson_disk* disk, caisson_disk_end* ends, unsigned most, int wait_ms) {
    unsigned count = disk->take(ends, most);
    if ((count > 0 || wait_ms == 0) && ++disk->polls < turn_every) return count;
    disk->turn(std::chrono::milliseconds(count > 0 ? 0 : wait_ms));
    return count > 0 ? count : disk->take(ends, most);
}

}  // extern "C"
