#include "frontends/block/link.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson::block::frontend {

// ---- Memory --------------------------------------------------------------------------------------------------------

Result<KeptMemory> KeptMemory::make() {
    Fd fd(::memfd_create("caisson-block-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd) return host_fault(errno, "memfd");
    if (::ftruncate(fd.get(), sizeof(Kept)) != 0) return host_fault(errno, "ftruncate");
    if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return host_fault(errno, "seals");
    return map(std::move(fd));
}

Result<KeptMemory> KeptMemory::map(Fd fd) {
    struct stat seen{};
    if (::fstat(fd.get(), &seen) != 0) return host_fault(errno, "fstat");
    if (static_cast<std::size_t>(seen.st_size) != sizeof(Kept)) return host_fault(EBADMSG, "journal of another size");
    void* base = ::mmap(nullptr, sizeof(Kept), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (base == MAP_FAILED) return host_fault(errno, "mmap");
    return KeptMemory(std::move(fd), static_cast<Kept*>(base));
}

KeptMemory::~KeptMemory() {
    if (base_ != nullptr) ::munmap(base_, sizeof(Kept));
}

void KeptMemory::write(const Features& features) const {
    base_->sequence |= 1;
    std::atomic_thread_fence(std::memory_order_release);  // a reader that sees a new byte sees the odd number
    base_->features = features;
    std::atomic_thread_fence(std::memory_order_release);  // pairs with the first fence of read()
    base_->sequence += 1;
}

// What cannot be read whole now comes as an update in a moment.
Features KeptMemory::read() const {
    const volatile std::uint32_t& sequence = base_->sequence;
    const std::uint32_t before = sequence;
    std::atomic_thread_fence(std::memory_order_acquire);  // pairs with the second fence of write()
    Features features;
    std::memcpy(&features, &base_->features, sizeof features);
    std::atomic_thread_fence(std::memory_order_acquire);  // pairs with the first fence of write()
    return (before & 1) == 0 && sequence == before ? features : Features{};
}

// ---- Handover ------------------------------------------------------------------------------------------------------

Result<Link> read_link(HandoverReader& handover) {
    const Link link = TRY(handover.value<Link>());
    if (link.queues < 1 || link.queues > max_queues) return host_fault(EBADMSG, "handover: queues");
    if (link.arena_pages < 1 || link.arena_pages > most_arena_pages) return host_fault(EBADMSG, "handover: arena");
    if (link.attachment > Attachment::Kind::nbd) return host_fault(EBADMSG, "handover: attachment");
    return link;
}

Result<TakenOver> take_over(const Link& link, HandoverReader& handover, Hypervisor& hypervisor, Requests& requests,
                            ConnectionJournal& journal, DeviceStats& stats, unsigned patience) {
    DataPath::Parts parts{.requests = requests,
                          .journal = journal,
                          .stats = stats,
                          .arena = TRY(handover.pages(hypervisor)),
                          .descriptors = TRY(handover.pages(hypervisor)),
                          .queues = {},
                          .patience = patience};
    for (std::uint32_t i = 0; i < link.queues; ++i) {
        SharedPages ring = TRY(handover.pages(hypervisor));
        parts.queues.push_back({std::move(ring), TRY(handover.channel())});
    }
    TakenOver taken;
    if (link.attachment != Attachment::Kind::none) taken.attachment = TRY(handover.fd());
    taken.path = TRY(DataPath::open(std::move(parts)));
    return taken;
}

}  // namespace caisson::block::frontend
