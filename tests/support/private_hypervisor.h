// A Hypervisor inside one process, without a broker: pages are memfds, nobody else maps them. For tests that play the
// other domain themselves and want many runs a second; what grants promise is tested on the real one.
#pragma once

#include <sys/mman.h>

#include <functional>
#include <map>
#include <set>

#include "ring/detail/shared_access.h"
#include "ring/hypervisor.h"

namespace caisson::test {

class PrivateHypervisor final : public Hypervisor {
  public:
    ~PrivateHypervisor() override {
        for (auto& [first, region] : regions_) ::munmap(region.base, region.bytes);
        for (auto& [base, bytes] : adopted_) ::munmap(base, bytes);
    }

    DomainId self() const override { return DomainId(1); }
    Capabilities capabilities() const override { return {.max_pages_per_share = 1024}; }

    Result<SharedPages> share(DomainId peer, std::uint32_t pages, Access access) override {
        if (fail_shares) return host_fault(ENOSPC, "share");
        Fd fd(::memfd_create("pages", MFD_CLOEXEC));
        const std::size_t bytes = pages * page_size;
        if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) return host_fault(errno, "memfd");
        const std::uint32_t first = lowest_free(pages);
        std::vector<GrantRef> refs;
        for (std::uint32_t i = 0; i < pages; ++i) refs.emplace_back(first + i);
        void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
        if (base == MAP_FAILED) return host_fault(errno, "mmap");
        regions_[first] = {base, bytes, access, peer};
        return SharedPages(*this, peer, access, detail::SharedAccess::span(base, bytes), std::move(refs),
                           std::move(fd));
    }
    Result<SharedPages> adopt(DomainId peer, Fd fd, std::vector<GrantRef> refs) override {
        const std::size_t bytes = refs.size() * page_size;
        void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
        if (base == MAP_FAILED) return host_fault(errno, "mmap");
        adopted_[base] = bytes;
        return SharedPages(*this, peer, Access::read_write, detail::SharedAccess::span(base, bytes), std::move(refs),
                           Fd());
    }
    Result<SharedPages> reclaim(GrantRef first) override {
        const auto it = regions_.find(first.raw);
        if (it == regions_.end() || elsewhere_.contains(first.raw)) return host_fault(ENOENT, "reclaim");
        const Region& region = it->second;
        std::vector<GrantRef> refs;
        for (std::uint32_t i = 0; i < region.bytes / page_size; ++i) refs.emplace_back(first.raw + i);
        const SharedSpan memory =
            region.access == Access::read_write ? detail::SharedAccess::span(region.base, region.bytes) : SharedSpan();
        return SharedPages(*this, region.peer, region.access, memory, std::move(refs), Fd());
    }
    Result<MappedPages> map(DomainId, std::span<const GrantRef>, Access) override { return unsupported("map"); }
    Status copy(std::span<GrantCopy>) override { return unsupported("copy"); }
    SharedSpan view(const GrantRange&, Access, GrantStatus& status) override {
        status = GrantStatus::bad_reference;
        return {};
    }
    Result<EventChannel> allocate_unbound(DomainId) override { return unsupported("event channels"); }
    Result<EventChannel> bind_interdomain(DomainId, Port) override { return unsupported("event channels"); }
    void close(EventChannel) override {}
    Result<Fd> restrict_to(std::span<const DomainId>) override { return unsupported("restrict"); }
    std::size_t quarantined_pages() const override { return 0; }
    void retry_quarantine() override {}

    // These were shared through another connection of the domain: not to be reclaimed through this one.
    void shared_elsewhere(GrantRef first) { elsewhere_.insert(first.raw); }

    // What the other domain sees.
    bool granted(std::uint32_t ref) const { return region_of(ref) != nullptr; }
    bool writable(std::uint32_t ref) const {
        const Region* region = region_of(ref);
        return region != nullptr && region->access == Access::read_write;
    }
    SharedSpan page(std::uint32_t ref) const {
        const auto it = regions_.upper_bound(ref);
        if (region_of(ref) == nullptr) return {};
        const auto& [first, region] = *std::prev(it);
        return detail::SharedAccess::span(static_cast<std::byte*>(region.base) + (ref - first) * page_size, page_size);
    }
    std::size_t shares() const { return regions_.size(); }

    bool fail_shares = false;
    std::function<void()> on_end;  // pages are about to be ended

  private:
    struct Region {
        void* base;
        std::size_t bytes;
        Access access;
        DomainId peer;
    };
    // As hypervisors do: a reference that was ended is soon another one's.
    std::uint32_t lowest_free(std::uint32_t pages) const {
        std::uint32_t first = lowest_ref;
        for (const auto& [ref, region] : regions_) {
            if (ref - first >= pages) break;
            first = ref + static_cast<std::uint32_t>(region.bytes / page_size);
        }
        return first;
    }
    const Region* region_of(std::uint32_t ref) const {
        auto it = regions_.upper_bound(ref);
        if (it == regions_.begin()) return nullptr;
        --it;
        return ref - it->first < it->second.bytes / page_size ? &it->second : nullptr;
    }
    Result<End> end(SharedPages& pages) override {
        const auto other = adopted_.find(pages.memory().empty() ? nullptr : detail::SharedAccess::base(pages.memory()));
        if (other != adopted_.end()) {  // only looked at: whoever shared them ends them
            ::munmap(other->first, other->second);
            adopted_.erase(other);
            return End::ended;
        }
        const auto it = regions_.find(pages.refs()[0].raw);
        if (it == regions_.end()) return End::ended;
        if (on_end) on_end();
        ::munmap(it->second.base, it->second.bytes);
        regions_.erase(it);
        return End::ended;
    }
    void quarantine(SharedPages&&) override {}
    void unmap(std::uint64_t, SharedSpan) override {}

    std::map<std::uint32_t, Region> regions_;
    std::map<void*, std::size_t> adopted_;
    std::set<std::uint32_t> elsewhere_;
    static constexpr std::uint32_t lowest_ref = 100;
};

}  // namespace caisson::test
