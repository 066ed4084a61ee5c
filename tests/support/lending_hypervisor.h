// A Hypervisor inside one process for a backend under test: the peer's pages are plain memory of the test, so that many
// thousand runs a second are possible. What grants promise is tested on the real one (tests/conformance/).
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>

#include "ring/detail/shared_access.h"
#include "ring/hypervisor.h"
#include "tests/support/loose_channel.h"

namespace caisson::test {

class LendingHypervisor final : public Hypervisor {
  public:
    explicit LendingHypervisor(bool direct_view = true) : direct_view_(direct_view) {}

    // What the peer would do: pages that the backend may reach as the grants first, first + 1, ...
    struct Grant {
        std::uint32_t first = 0;
        SharedSpan memory;
    };
    Grant lend(std::uint32_t pages, Access access) {
        const std::uint32_t first = next_;
        next_ += pages + 1;  // a reference between two grants is nobody's
        auto& region = regions_[first];
        region.bytes = pages * page_size;
        region.access = access;
        region.base.reset(static_cast<std::byte*>(std::aligned_alloc(page_size, region.bytes)));
        std::memset(region.base.get(), 0, region.bytes);
        return {first, detail::SharedAccess::span(region.base.get(), region.bytes)};
    }

    DomainId self() const override { return DomainId(1); }
    Capabilities capabilities() const override { return {.copy = true, .direct_view = direct_view_}; }

    Result<MappedPages> map(DomainId, std::span<const GrantRef> refs, Access access) override {
        if (maps_until_failure-- == 0) return host_fault(ENOMEM, "map");
        GrantStatus status = GrantStatus::okay;
        for (std::size_t i = 0; i < refs.size(); ++i)  // several only as neighbours: this is one allocation
            if (refs[i].raw != refs[0].raw + i || find({.ref = refs[i], .length = page_size}, access, status).empty())
                return peer_fault("grant reference");
        const SharedSpan first = find({.ref = refs[0], .length = page_size}, access, status);
        mapped += static_cast<int>(refs.size());
        return MappedPages(*this, 1,
                           detail::SharedAccess::span(detail::SharedAccess::base(first), refs.size() * page_size));
    }
    Status copy(std::span<GrantCopy> batch) override {
        if (copies_until_failure-- == 0) return host_fault(ENOMEM, "copy");
        for (GrantCopy& one : batch) {
            const bool from = one.direction == GrantCopy::Direction::from_peer;
            const GrantRange& range = from ? one.source : one.target;
            one.status = GrantStatus::okay;
            const SharedSpan bytes = find(range, from ? Access::read_only : Access::read_write, one.status);
            if (one.status != GrantStatus::okay) continue;
            if (from)
                (void)bytes.copy_out(0, {one.local, range.length});
            else
                (void)bytes.copy_in(0, {one.local, range.length});
        }
        return {};
    }
    SharedSpan view(const GrantRange& range, Access access, GrantStatus& status) override {
        return find(range, access, status);
    }

    Result<SharedPages> share(DomainId, std::uint32_t, Access) override { return unsupported("share"); }
    Result<SharedPages> adopt(DomainId, Fd, std::vector<GrantRef>) override { return unsupported("adopt"); }
    Result<SharedPages> reclaim(GrantRef) override { return unsupported("reclaim"); }
    Result<EventChannel> allocate_unbound(DomainId) override { return unsupported("event channels"); }
    Result<EventChannel> bind_interdomain(DomainId, Port) override { return unsupported("event channels"); }
    void close(EventChannel) override {}
    Result<Fd> restrict_to(std::span<const DomainId>) override { return unsupported("restrict"); }
    std::size_t quarantined_pages() const override { return 0; }
    void retry_quarantine() override {}

    // The peer ends a grant: it cannot be reached any more; where it is mapped it stays, as on Xen.
    void withdraw(std::uint32_t first) {
        ended_.push_back(std::move(regions_.at(first).base));
        regions_.erase(first);
    }

    int mapped = 0;  // must be 0 when everything was given back
    // The system runs short: the call after so many fails. Negative: none does.
    int maps_until_failure = -1, copies_until_failure = -1;

  protected:
    Result<End> end(SharedPages&) override { return End::ended; }
    void quarantine(SharedPages&&) override {}
    void unmap(std::uint64_t, SharedSpan memory) override { mapped -= static_cast<int>(memory.size() / page_size); }

  private:
    struct Free {
        void operator()(std::byte* base) const { std::free(base); }
    };
    struct Region {
        std::unique_ptr<std::byte, Free> base;
        std::size_t bytes = 0;
        Access access = Access::read_only;
    };
    SharedSpan find(const GrantRange& range, Access access, GrantStatus& status) const {
        auto it = regions_.upper_bound(range.ref.raw);
        if (it == regions_.begin()) return status = GrantStatus::bad_reference, SharedSpan();
        const auto& [first, region] = *std::prev(it);
        const std::size_t page = range.ref.raw - first;
        if (page >= region.bytes / page_size) return status = GrantStatus::bad_reference, SharedSpan();
        if (access == Access::read_write && region.access == Access::read_only)
            return status = GrantStatus::bad_reference, SharedSpan();
        if (!fits<std::size_t>(range.offset, range.length, page_size))
            return status = GrantStatus::bad_range, SharedSpan();
        return detail::SharedAccess::span(region.base.get() + page * page_size + range.offset, range.length);
    }

    bool direct_view_;
    std::uint32_t next_ = 8;
    std::map<std::uint32_t, Region> regions_;
    std::vector<std::unique_ptr<std::byte, Free>> ended_;
};

}  // namespace caisson::test
