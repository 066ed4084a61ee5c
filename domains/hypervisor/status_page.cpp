#include "domains/hypervisor/status_page.h"

#include <sys/mman.h>

#include <atomic>

namespace caisson::hypervisor {

Result<StatusPage> StatusPage::make(std::uint32_t entries) {
    const std::size_t bytes = entries * sizeof(std::uint32_t);
    Fd memory = TRY(sealed_memory("caisson-status", bytes));
    void* words = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    if (words == MAP_FAILED) return host_fault(errno, "map a status page");
    StatusPage page(std::move(memory), static_cast<std::uint32_t*>(words), entries);
    TRY(seal_for_good(page.descriptor(), Writing::forbidden_from_now));
    return page;
}

StatusPage::~StatusPage() {
    if (words_ == nullptr) return;
    set(0, entries_, 0);
    ::munmap(words_, entries_ * sizeof(std::uint32_t));
}

void StatusPage::set(std::uint32_t first, std::uint32_t count, std::uint32_t word) {
    if (!fits(first, count, entries_)) return;
    // Release pairs with the acquire in the port's look-up: who sees the word sees the pages that belong to it.
    for (std::uint32_t i = first; i < first + count; ++i)
        std::atomic_ref(words_[i]).store(word, std::memory_order_release);
}

}  // namespace caisson::hypervisor
