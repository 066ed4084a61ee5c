#include "backends/block/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>

namespace caisson::block::backend {

Result<std::unique_ptr<Host>> MemoryHost::make(const Config& config, HandoverReader& handover,
                                               Completions& completions) {
    std::unique_ptr<MemoryHost> host(new MemoryHost(TRY(handover.fd()), config.geometry, completions));
    TRY(host->map(config.geometry.sectors));
    return host;
}

MemoryHost::~MemoryHost() {
    if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
}

// Never more than the file has: reaching beyond its end would be our death.
Status MemoryHost::map(std::uint64_t sectors) {
    struct stat found{};
    if (::fstat(file_.get(), &found) != 0) return host_fault(errno, "the disk's memory");
    const std::uint64_t bytes = std::min(sectors * wire_sector, static_cast<std::uint64_t>(found.st_size));
    // A sealed or read-only disk has a descriptor that cannot be written: then the pages cannot be either.
    const int mode = ::fcntl(file_.get(), F_GETFL);
    const int protection = (mode & O_ACCMODE) == O_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE;
    void* base = ::mmap(nullptr, bytes, protection, MAP_SHARED, file_.get(), 0);
    if (base == MAP_FAILED) return host_fault(errno, "mapping the disk's memory");
    if (!memory_.empty()) ::munmap(memory_.data(), memory_.size());
    memory_ = {static_cast<std::byte*>(base), bytes};
    geometry_.sectors = bytes / wire_sector;
    return {};
}

void MemoryHost::resized(std::uint64_t sectors) {
    if (sectors * wire_sector <= memory_.size())
        geometry_.sectors = sectors;
    else
        (void)map(sectors);  // too large for us: the disk stays as it is
}

int MemoryHost::move(const Io& io) {
    if (io.operation == Operation::flush) return 0;
    if (io.operation == Operation::discard) return discard(io);
    if (!fits<std::uint64_t>(io.offset, io.length, memory_.size())) return EIO;
    std::span<std::byte> at = memory_.subspan(io.offset, io.length);
    const bool read = io.operation == Operation::read;
    if (!io.bounced.empty()) {
        std::memcpy(read ? io.bounced.data() : at.data(), read ? at.data() : io.bounced.data(), io.length);
        return 0;
    }
    for (const SharedSpan& part : io.shared) {  // one by one: neighbours in a list are no neighbours (XSA-229)
        const std::size_t count = std::min(part.size(), at.size());
        const bool moved = read ? part.copy_in(0, at.first(count)) : part.copy_out(0, at.first(count));
        if (!moved) return EIO;
        at = at.subspan(count);
    }
    return 0;
}

int MemoryHost::discard(const Io& io) {
    if (!fits<std::uint64_t>(io.offset, io.length, memory_.size())) return EIO;
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const auto offset = static_cast<off_t>(io.offset), length = static_cast<off_t>(io.length);
    return ::fallocate(file_.get(), mode, offset, length) == 0 ? 0 : errno;
}

}  // namespace caisson::block::backend
