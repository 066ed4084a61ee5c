#include "ring/xen/grant_allocator.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <xen/gntalloc.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "ring/detail/shared_access.h"

namespace caisson::xen {

struct GrantAllocator::Entry {
    std::uint32_t used = 0;   // written last, cleared first
    std::uint32_t at_page;    // gntalloc's index, in pages
    std::uint32_t first_ref;  // its place in Book::refs
    std::uint32_t pages;
    std::uint16_t peer, writable;
    std::uint32_t unused;

    // The heir's check: nothing of it leads outside of the book.
    bool sound() const { return pages != 0 && fits(first_ref, pages, most_pages); }
};

struct GrantAllocator::Book {
    static constexpr std::uint32_t right_magic = 0x47414C31;  // "GAL1"
    std::uint32_t magic = 0;
    std::uint16_t self = 0, unused = 0;
    std::array<Entry, most_allocations> entries{};
    std::array<std::uint32_t, most_pages> refs{};
};

namespace {

constexpr const char* path = "/dev/xen/gntalloc";

// ioctl's argument ends in an array that is as long as `count` says.
struct Request {
    explicit Request(std::uint32_t count) : words((sizeof(ioctl_gntalloc_alloc_gref) + count * 4) / 8 + 1) {}
    ioctl_gntalloc_alloc_gref* get() { return reinterpret_cast<ioctl_gntalloc_alloc_gref*>(words.data()); }
    std::vector<std::uint64_t> words;
};

Result<Request> allocate_pages(const Fd& device, DomainId peer, std::uint32_t pages, bool writable) {
    Request request(pages);
    *request.get() = {.domid = peer.raw,
                      .flags = static_cast<std::uint16_t>(writable ? GNTALLOC_FLAG_WRITABLE : 0),
                      .count = pages,
                      .index = 0,
                      .gref_ids = {}};
    if (::ioctl(device.get(), IOCTL_GNTALLOC_ALLOC_GREF, request.get()) != 0)
        return host_fault(errno, "gntalloc", std::to_string(pages) + " pages (see the limit of module xen-gntalloc)");
    return request;
}

Result<std::byte*> map_at(const Fd& device, std::uint64_t index, std::size_t bytes) {
    void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device.get(), static_cast<off_t>(index));
    if (base == MAP_FAILED) return host_fault(errno, "mmap of gntalloc");
    return static_cast<std::byte*>(base);
}

void deallocate(const Fd& device, std::uint64_t index, std::uint32_t pages) {
    ioctl_gntalloc_dealloc_gref request{.index = index, .count = pages};
    (void)::ioctl(device.get(), IOCTL_GNTALLOC_DEALLOC_GREF, &request);
}

}  // namespace

Result<GrantAllocator> GrantAllocator::open(DomainId self) {
    Fd device(::open(path, O_RDWR | O_CLOEXEC));
    if (!device) return host_fault(errno, path);
    constexpr std::uint32_t pages = (sizeof(Book) + page_size - 1) / page_size;
    Request request = TRY(allocate_pages(device, self, pages, false));
    std::byte* base = TRY(map_at(device, request.get()->index, pages * page_size));
    Book* book = new (base) Book;
    book->self = self.raw;
    book->magic = Book::right_magic;
    return GrantAllocator(std::move(device), book);
}

Result<GrantAllocator> GrantAllocator::inherit(Fd device) {
    std::byte* base = TRY(map_at(device, 0, (sizeof(Book) + page_size - 1) / page_size * page_size));
    GrantAllocator inherited(std::move(device), std::launder(reinterpret_cast<Book*>(base)));
    if (inherited.book_->magic != Book::right_magic) return host_fault(EBADMSG, "gntalloc file without a book");
    return inherited;
}

GrantAllocator::~GrantAllocator() {
    if (book_ != nullptr) ::munmap(book_, (sizeof(Book) + page_size - 1) / page_size * page_size);
}

DomainId GrantAllocator::self() const { return DomainId(book_->self); }

Result<GrantAllocator::Pages> GrantAllocator::allocate(DomainId peer, std::uint32_t pages, Access access) {
    const auto entry = std::ranges::find_if(book_->entries, [](const Entry& one) { return one.used == 0; });
    const auto at = room_for(pages);
    if (pages == 0 || entry == book_->entries.end() || !at)
        return host_fault(ENOSPC, "pages shared through one connection");
    Request request = TRY(allocate_pages(device_, peer, pages, access == Access::read_write));
    *entry = {.used = 0,
              .at_page = static_cast<std::uint32_t>(request.get()->index / page_size),
              .first_ref = *at,
              .pages = pages,
              .peer = peer.raw,
              .writable = access == Access::read_write,
              .unused = 0};
    // `gref_ids` has length one in the header; the kernel fills `count`.
    std::memcpy(&book_->refs[*at],
                reinterpret_cast<std::byte*>(request.get()) + offsetof(ioctl_gntalloc_alloc_gref, gref_ids),
                pages * sizeof(std::uint32_t));
    auto memory = map(*entry);
    if (!memory) {
        deallocate(device_, request.get()->index, pages);
        return std::unexpected(memory.error());
    }
    std::atomic_signal_fence(std::memory_order_release);
    entry->used = 1;
    Pages made{.peer = peer, .access = access, .memory = *memory, .refs = {}};
    for (std::uint32_t i = 0; i < pages; ++i) made.refs.emplace_back(book_->refs[*at + i]);
    return made;
}

Result<GrantAllocator::Pages> GrantAllocator::find(GrantRef first) const {
    const Entry* entry = entry_of(first);
    if (entry == nullptr) return host_fault(ENOENT, "shared pages");
    const Entry copy = *entry;
    if (!copy.sound()) return host_fault(EBADMSG, "book of shared pages");
    Pages found{.peer = DomainId(copy.peer),
                .access = copy.writable != 0 ? Access::read_write : Access::read_only,
                .memory = TRY(map(copy)),
                .refs = {}};
    for (std::uint32_t i = 0; i < copy.pages; ++i) found.refs.emplace_back(book_->refs[copy.first_ref + i]);
    return found;
}

void GrantAllocator::release(GrantRef first) {
    Entry* entry = entry_of(first);
    if (entry == nullptr) return;
    const Entry copy = *entry;
    entry->used = 0;
    std::atomic_signal_fence(std::memory_order_release);
    deallocate(device_, std::uint64_t{copy.at_page} * page_size, copy.pages);
}

GrantAllocator::Entry* GrantAllocator::entry_of(GrantRef first) const {
    for (Entry& entry : book_->entries)
        if (entry.used != 0 && entry.sound() && book_->refs[entry.first_ref] == first.raw) return &entry;
    return nullptr;
}

// First fit among the places of living entries.
std::optional<std::uint32_t> GrantAllocator::room_for(std::uint32_t pages) const {
    std::vector<std::pair<std::uint32_t, std::uint32_t>> taken;
    for (const Entry& entry : book_->entries)
        if (entry.used != 0 && entry.sound()) taken.emplace_back(entry.first_ref, entry.pages);
    std::ranges::sort(taken);
    std::uint32_t at = 0;
    for (const auto& [start, length] : taken) {
        if (start >= at && start - at >= pages) break;
        at = std::max(at, start + length);
    }
    return fits(at, pages, most_pages) ? std::optional(at) : std::nullopt;
}

Result<SharedSpan> GrantAllocator::map(const Entry& entry) const {
    const std::size_t bytes = std::size_t{entry.pages} * page_size;
    std::byte* base = TRY(map_at(device_, std::uint64_t{entry.at_page} * page_size, bytes));
    return caisson::detail::SharedAccess::span(base, bytes);
}

void GrantAllocator::unmap(SharedSpan memory) {
    if (!memory.empty()) ::munmap(caisson::detail::SharedAccess::base(memory), memory.size());
}

}  // namespace caisson::xen
