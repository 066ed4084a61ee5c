#include "ring/xen/port.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
extern "C" {  // the header does not say so itself
#include <xengnttab.h>
}

#include <csignal>
#include <optional>
#include <unordered_map>

#include "ring/detail/shared_access.h"
#include "ring/store.h"
#include "ring/xen/grant_allocator.h"

using domid_t = std::uint16_t;  // xen/evtchn.h of Linux takes it from its includer
#include <xen/evtchn.h>

namespace caisson::xen {

namespace {

using caisson::detail::SharedAccess;

constexpr std::size_t most_refs_a_map = 64 << 10;  // gntdev's own limit
constexpr std::size_t copies_a_call = 128;

GrantStatus status_of(std::int16_t code) {  // GNTST_* of grant_table.h
    switch (code) {
        case 0: return GrantStatus::okay;
        case -10: return GrantStatus::bad_range;
        default: return GrantStatus::bad_reference;
    }
}

class XenHypervisor final : public Hypervisor {
  public:
    // As a whole domain, which may open more later.
    XenHypervisor(DomainId self, GrantAllocator allocator, GrantDevice grants)
        : self_(self), own_grants_(std::move(grants)), grants_(&*own_grants_) {
        allocators_.push_back(std::move(allocator));
    }
    // As a sealed worker.
    XenHypervisor(GrantAllocator allocator, const GrantDevice& grants) : self_(allocator.self()), grants_(&grants) {
        allocators_.push_back(std::move(allocator));
    }

    DomainId self() const override { return self_; }
    Capabilities capabilities() const override {
        return {.contiguous_map = true,
                .copy = true,
                .read_only_map = true,
                .direct_view = false,
                .end_tells = false,
                .peers_enforced = false,
                .max_pages_per_share = GrantAllocator::most_pages};
    }

    Result<SharedPages> share(DomainId peer, std::uint32_t pages, Access access) override;
    Result<SharedPages> adopt(DomainId peer, Fd descriptor, std::vector<GrantRef> refs) override;
    Result<SharedPages> reclaim(GrantRef first) override;
    Result<MappedPages> map(DomainId peer, std::span<const GrantRef> refs, Access access) override;
    Status copy(std::span<GrantCopy> batch) override;
    SharedSpan view(const GrantRange&, Access, GrantStatus& status) override {
        status = GrantStatus::bad_reference;
        return {};
    }

    Result<EventChannel> allocate_unbound(DomainId peer) override;
    Result<EventChannel> bind_interdomain(DomainId peer, Port remote) override;
    void close(EventChannel channel) override;
    // gntalloc's open file, with a book of its own. The peers are not enforced here: see GrantDevice.
    Result<Fd> restrict_to(std::span<const DomainId>) override {
        if (!own_grants_) return unsupported("a worker hands nothing on");
        return TRY(GrantAllocator::open(self_)).device().duplicate();
    }

    std::size_t quarantined_pages() const override { return 0; }
    void retry_quarantine() override {}

  protected:
    Result<End> end(SharedPages& pages) override;
    void quarantine(SharedPages&& pages) override { disown(pages); }  // end() never refuses
    void unmap(std::uint64_t, SharedSpan memory) override {
        (void)xengnttab_unmap(grants_->handle(), SharedAccess::base(memory),
                              static_cast<std::uint32_t>(memory.size() / page_size));
    }

  private:
    Result<SharedPages> own(GrantAllocator& from, GrantAllocator::Pages pages);

    DomainId self_;
    std::optional<GrantDevice> own_grants_;  // a worker uses its process's
    const GrantDevice* grants_;
    std::vector<GrantAllocator> allocators_;  // one more when the last one's book is full
    struct Owned {
        std::size_t allocator;
        const std::byte* base;
    };
    std::unordered_map<std::uint32_t, Owned> owned_;  // pages to be ended here, by their first reference
};

// ---- Our pages -----------------------------------------------------------------------------------------------------

Result<SharedPages> XenHypervisor::own(GrantAllocator& from, GrantAllocator::Pages pages) {
    auto descriptor = from.device().duplicate();
    if (!descriptor) {
        GrantAllocator::unmap(pages.memory);
        from.release(pages.refs.front());
        return std::unexpected(descriptor.error());
    }
    owned_[pages.refs.front().raw] = {static_cast<std::size_t>(&from - allocators_.data()),
                                      SharedAccess::base(pages.memory)};
    return SharedPages(*this, pages.peer, pages.access, pages.memory, std::move(pages.refs), std::move(*descriptor));
}

Result<SharedPages> XenHypervisor::share(DomainId peer, std::uint32_t pages, Access access) {
    if (pages == 0 || pages > GrantAllocator::most_pages) return host_fault(EINVAL, "pages of one share");
    auto made = allocators_.back().allocate(peer, pages, access);
    if (!made && made.error().err == ENOSPC && own_grants_) {  // its book is full, or there are no more pages at all
        allocators_.push_back(TRY(GrantAllocator::open(self_)));
        made = allocators_.back().allocate(peer, pages, access);
    }
    return own(allocators_.back(), TRY(std::move(made)));
}

// The descriptor is gntalloc's open file, and its book says where the pages lie.
Result<SharedPages> XenHypervisor::adopt(DomainId peer, Fd descriptor, std::vector<GrantRef> refs) {
    if (refs.empty()) return host_fault(EINVAL, "adopt no pages");
    Fd copy = TRY(descriptor.duplicate());
    const GrantAllocator sharer = TRY(GrantAllocator::inherit(std::move(copy)));
    auto found = TRY(sharer.find(refs.front()));
    if (found.access == Access::read_only || found.refs != refs || found.peer != peer) {
        GrantAllocator::unmap(found.memory);
        return unsupported("adopt pages that are shared otherwise than said");
    }
    return SharedPages(*this, peer, Access::read_write, found.memory, std::move(refs), std::move(descriptor));
}

Result<SharedPages> XenHypervisor::reclaim(GrantRef first) {
    auto found = TRY(allocators_.front().find(first));
    if (found.access == Access::read_only) {  // as on the local port: they can only be ended
        GrantAllocator::unmap(found.memory);
        found.memory = {};
    }
    return own(allocators_.front(), std::move(found));
}

Result<End> XenHypervisor::end(SharedPages& pages) {
    const GrantRef first = pages.refs().front();
    const auto owned = owned_.find(first.raw);
    // An adopted copy is another mapping than the one that was shared: it goes, the grant stays.
    const bool ours = owned != owned_.end() && owned->second.base == SharedAccess::base(pages.memory());
    GrantAllocator::unmap(pages.memory());
    if (ours) {
        allocators_[owned->second.allocator].release(first);
        owned_.erase(owned);
    }
    return End::ended;
}

// ---- Their pages ---------------------------------------------------------------------------------------------------

Result<MappedPages> XenHypervisor::map(DomainId peer, std::span<const GrantRef> refs, Access access) {
    if (refs.empty() || refs.size() > most_refs_a_map) return host_fault(EINVAL, "references of one map");
    static_assert(sizeof(GrantRef) == sizeof(std::uint32_t));
    const auto attempt = [&](std::span<const GrantRef> some) {
        std::vector<std::uint32_t> raw;
        for (const GrantRef ref : some) raw.push_back(ref.raw);
        return xengnttab_map_domain_grant_refs(grants_->handle(), static_cast<std::uint32_t>(raw.size()), peer.raw,
                                               raw.data(),
                                               access == Access::read_write ? PROT_READ | PROT_WRITE : PROT_READ);
    };
    if (void* base = attempt(refs))
        return MappedPages(*this, 0, SharedAccess::span(static_cast<std::byte*>(base), refs.size() * page_size));
    // gntdev does not say which one it was.
    for (const GrantRef& ref : refs) {
        void* one = attempt(std::span(&ref, 1));
        if (one == nullptr) return peer_fault("map of grant reference", ref.raw, Wanted::nothing, 0);
        (void)xengnttab_unmap(grants_->handle(), one, 1);
    }
    return host_fault(errno, "map of grants");
}

xengnttab_grant_copy_segment_t segment_of(const GrantCopy& element) {
    using enum GrantCopy::Direction;
    xengnttab_grant_copy_segment_t segment{};
    if (element.direction != to_peer) {
        segment.source.foreign = {element.source.ref.raw, element.source.offset, element.source.domain.raw};
        segment.flags |= GNTCOPY_source_gref;
        segment.len = element.source.length;
    } else {
        segment.source.virt = element.local;
    }
    if (element.direction != from_peer) {
        segment.dest.foreign = {element.target.ref.raw, element.target.offset, element.target.domain.raw};
        segment.flags |= GNTCOPY_dest_gref;
        segment.len = element.target.length;
    } else {
        segment.dest.virt = element.local;
    }
    return segment;
}

bool inside(const GrantRange& range) { return fits(range.offset, range.length, page_size); }

Status XenHypervisor::copy(std::span<GrantCopy> batch) {
    using enum GrantCopy::Direction;
    std::vector<xengnttab_grant_copy_segment_t> segments;
    std::vector<GrantCopy*> sent;
    const auto flush = [&]() -> Status {
        if (segments.empty()) return {};
        if (xengnttab_grant_copy(grants_->handle(), static_cast<std::uint32_t>(segments.size()), segments.data()) != 0)
            return host_fault(errno, "grant copy");
        for (std::size_t i = 0; i < sent.size(); ++i) sent[i]->status = status_of(segments[i].status);
        segments.clear();
        sent.clear();
        return {};
    };
    for (GrantCopy& element : batch) {
        // gntdev fails the whole call for a range that leaves its page: it would hide the others' statuses.
        if ((element.direction != to_peer && !inside(element.source)) ||
            (element.direction != from_peer && !inside(element.target)) ||
            (element.direction == peer_to_peer && element.source.length != element.target.length)) {
            element.status = GrantStatus::bad_range;
            continue;
        }
        segments.push_back(segment_of(element));
        sent.push_back(&element);
        if (segments.size() == copies_a_call) TRY(flush());
    }
    return flush();
}

// ---- Events --------------------------------------------------------------------------------------------------------

// One open file a channel: it can be handed on alone, and there is one port to read from it.
Result<Fd> open_channel() {
    Fd fd(::open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return host_fault(errno, "/dev/xen/evtchn");
    return fd;
}

Result<EventChannel> XenHypervisor::allocate_unbound(DomainId peer) {
    if (!own_grants_) return unsupported("a worker makes no channels");
    Fd fd = TRY(open_channel());
    ioctl_evtchn_bind_unbound_port request{.remote_domain = peer.raw};
    const int port = ::ioctl(fd.get(), IOCTL_EVTCHN_BIND_UNBOUND_PORT, &request);
    if (port < 0) return host_fault(errno, "evtchn: allocate a port");
    return EventChannel(EventChannel::Kind::xen, peer, Port(static_cast<std::uint32_t>(port)), std::move(fd), {});
}

Result<EventChannel> XenHypervisor::bind_interdomain(DomainId peer, Port remote) {
    if (!own_grants_) return unsupported("a worker makes no channels");
    Fd fd = TRY(open_channel());
    ioctl_evtchn_bind_interdomain request{.remote_domain = peer.raw, .remote_port = remote.raw};
    const int port = ::ioctl(fd.get(), IOCTL_EVTCHN_BIND_INTERDOMAIN, &request);
    if (port < 0)
        return std::unexpected(Error{.fault = Fault::peer, .err = errno, .what = "bind to the peer's event channel"});
    return EventChannel(EventChannel::Kind::xen, peer, Port(static_cast<std::uint32_t>(port)), std::move(fd), {});
}

// By name, because a worker may still hold the same open file.
void XenHypervisor::close(EventChannel channel) {
    if (!channel) return;
    ioctl_evtchn_unbind request{.port = channel.port().raw};
    (void)::ioctl(channel.wait_fd(), IOCTL_EVTCHN_UNBIND, &request);
}

}  // namespace

// ---- Opening -------------------------------------------------------------------------------------------------------

bool present() {
    return ::access("/dev/xen/gntdev", R_OK | W_OK) == 0 && ::access("/dev/xen/evtchn", R_OK | W_OK) == 0;
}

Result<GrantDevice> GrantDevice::open() {
    xengntdev_handle* handle = xengnttab_open(nullptr, 0);
    if (handle == nullptr) return host_fault(errno, "/dev/xen/gntdev");
    return GrantDevice(handle);
}

GrantDevice::~GrantDevice() {
    if (handle_ != nullptr) xengnttab_close(handle_);
}

Result<std::unique_ptr<Hypervisor>> open() {
    std::signal(SIGPIPE, SIG_IGN);
    Store store = TRY(Store::open(""));
    const auto text = TRY(store.read("domid"));
    const auto self = text ? parse_decimal<std::uint16_t>(*text) : std::nullopt;
    if (!self) return host_fault(ENOENT, "xenstore: domid");
    GrantAllocator allocator = TRY(GrantAllocator::open(DomainId(*self)));
    return std::make_unique<XenHypervisor>(DomainId(*self), std::move(allocator), TRY(GrantDevice::open()));
}

Result<std::unique_ptr<Hypervisor>> open_restricted(Fd handed, const GrantDevice& grants) {
    GrantAllocator allocator = TRY(GrantAllocator::inherit(std::move(handed)));
    return std::make_unique<XenHypervisor>(std::move(allocator), grants);
}

}  // namespace caisson::xen
