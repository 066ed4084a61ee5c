// /dev/xen/gntalloc: pages of ours, granted to a peer. By ioctl (xen/gntalloc.h of Linux): libxengnttab hides the index
// at which another process of this domain can map the same pages, and that is what a worker has to do.
//
// An open file of gntalloc owns what was allocated through it and can be handed on like any descriptor. Its first pages
// are our *book*, granted to nobody but ourselves: which references lie at which index. So the descriptor alone is
// enough for an heir to find, map and release everything. Every instruction is a safe place to die: an entry counts
// from the store of `used` on. The book is untrusted to the heir: it is bounded here, and the kernel refuses any index
// that the open file does not own.
//
// Threads: one process at a time.
#pragma once

#include <optional>
#include <vector>

#include "ring/fd.h"
#include "ring/hypervisor.h"

namespace caisson::xen {

class GrantAllocator {
  public:
    static constexpr std::uint32_t most_pages = 4096, most_allocations = 512;

    // A new open file. ENODEV: not a Xen domain, or the module xen-gntalloc is missing.
    static Result<GrantAllocator> open(DomainId self);
    // One that somebody else opened so.
    static Result<GrantAllocator> inherit(Fd device);

    GrantAllocator(GrantAllocator&& other) noexcept
        : device_(std::move(other.device_)), book_(std::exchange(other.book_, nullptr)) {}
    GrantAllocator& operator=(GrantAllocator&&) = delete;
    ~GrantAllocator();

    struct Pages {
        DomainId peer{};
        Access access = Access::read_write;
        SharedSpan memory;
        std::vector<GrantRef> refs;
    };
    // Zeroed by the kernel. ENOSPC: the limit of the module xen-gntalloc (parameter `limit`), or of the book.
    Result<Pages> allocate(DomainId peer, std::uint32_t pages, Access access);
    // What was allocated before, mapped.
    Result<Pages> find(GrantRef first) const;
    // The kernel takes the pages back, and keeps them from reuse until the peer has unmapped them.
    void release(GrantRef first);

    DomainId self() const;
    const Fd& device() const { return device_; }

    static void unmap(SharedSpan memory);

  private:
    struct Book;
    struct Entry;
    GrantAllocator(Fd device, Book* book) : device_(std::move(device)), book_(book) {}
    Entry* entry_of(GrantRef first) const;
    std::optional<std::uint32_t> room_for(std::uint32_t pages) const;
    Result<SharedSpan> map(const Entry& entry) const;

    Fd device_;
    Book* book_ = nullptr;
};

}  // namespace caisson::xen
