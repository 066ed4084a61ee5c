#include "ring/local/port.h"

#include <csignal>
#include <unordered_map>
#include <unordered_set>

#include "ring/detail/shared_access.h"
#include "ring/local/connection.h"
#include "ring/local/shared_memory.h"
#include "ring/local/view_cache.h"

namespace caisson::local {

namespace {

class LocalHypervisor final : public Hypervisor {
  public:
    explicit LocalHypervisor(Connection connection) : connection_(std::move(connection)), views_(connection_) {}
    ~LocalHypervisor() override;
    Status greet(bool successor);

    DomainId self() const override { return self_; }
    Capabilities capabilities() const override;
    int connection() const override { return connection_.fd(); }

    Result<SharedPages> share(DomainId peer, std::uint32_t pages, Access access) override;
    Result<SharedPages> adopt(DomainId peer, Fd descriptor, std::vector<GrantRef> refs) override;
    Result<SharedPages> reclaim(GrantRef first) override;
    Result<MappedPages> map(DomainId peer, std::span<const GrantRef> refs, Access access) override;
    Status copy(std::span<GrantCopy> batch) override;
    SharedSpan view(const GrantRange& range, Access access, GrantStatus& status) override {
        return views_.view(range, access, status);
    }

    Result<EventChannel> allocate_unbound(DomainId peer) override;
    Result<EventChannel> bind_interdomain(DomainId peer, Port remote) override;
    void close(EventChannel channel) override;
    Result<Fd> restrict_to(std::span<const DomainId> peers) override;

    std::size_t quarantined_pages() const override;
    void retry_quarantine() override;

  protected:
    Result<End> end(SharedPages& pages) override;
    void quarantine(SharedPages&& pages) override;
    void unmap(std::uint64_t handle, SharedSpan memory) override;

  private:
    using Regions = std::unordered_set<std::uint64_t>;
    struct Quarantined {
        GrantRef first;
        std::size_t pages;
        Mapping memory;
    };
    SharedPages own(DomainId peer, Access access, Mapping memory, GrantRef first, std::uint32_t pages, Fd descriptor);
    Result<End> end(GrantRef first);
    Status map_chunk(DomainId peer, std::span<const GrantRef> refs, Access access, Mapping& memory, std::size_t at_page,
                     Regions& regions);
    void release(const Regions& regions);

    Connection connection_;
    ViewCache views_;
    DomainId self_{};
    HelloReply limits_{};
    std::unordered_map<std::uint32_t, const std::byte*> owned_;  // regions to be ended here: first reference -> memory
    std::unordered_map<std::uint64_t, Regions> maps_;            // handle -> regions
    std::unordered_map<std::uint64_t, std::uint32_t> uses_;      // region -> maps it is in
    std::uint64_t next_handle_ = 1;
    std::vector<Quarantined> quarantine_;
};

LocalHypervisor::~LocalHypervisor() = default;  // the broker releases what is left when the connection closes

Status LocalHypervisor::greet(bool successor) {
    auto answer = TRY((connection_.call<HelloReply>(
        Op::hello, HelloRequest{.head = {}, .version = wire_version, .successor = successor ? 1U : 0U}, 0)));
    limits_ = answer.body;
    self_ = DomainId(limits_.domain);
    return {};
}

Capabilities LocalHypervisor::capabilities() const {
    return {.contiguous_map = true,
            .copy = true,
            .read_only_map = true,
            .direct_view = true,
            .max_pages_per_share = limits_.max_pages_per_share};
}

// ---- Our pages -----------------------------------------------------------------------------------------------------

SharedPages LocalHypervisor::own(DomainId peer, Access access, Mapping memory, GrantRef first, std::uint32_t pages,
                                 Fd descriptor) {
    std::vector<GrantRef> refs;
    refs.reserve(pages);
    for (std::uint32_t i = 0; i < pages; ++i) refs.emplace_back(first.raw + i);
    owned_[first.raw] = memory.base();
    return {*this, peer, access, memory.release(), std::move(refs), std::move(descriptor)};
}

Result<SharedPages> LocalHypervisor::share(DomainId peer, std::uint32_t pages, Access access) {
    const bool read_only = access == Access::read_only;
    auto answer = TRY((connection_.call<ShareReply>(
        Op::share, ShareRequest{.head = {}, .peer = peer.raw, .read_only = read_only, .pages = pages}, 1)));
    const GrantRef first(answer.body.first);
    auto memory = Mapping::map(answer.descriptors[0].get(), pages, Access::read_write);
    Status ready;
    if (!memory)
        ready = std::unexpected(memory.error());
    else if (read_only)  // our writable mapping exists now; from here on there will be no other
        if (auto done = connection_.call<Reply>(Op::activate, RefRequest{.head = {}, .ref = first.raw, .zero = 0}, 0);
            !done)
            ready = std::unexpected(done.error());
    if (!ready) {
        (void)end(first);
        return std::unexpected(ready.error());
    }
    return own(peer, access, std::move(*memory), first, pages, std::move(answer.descriptors[0]));
}

Result<SharedPages> LocalHypervisor::adopt(DomainId peer, Fd descriptor, std::vector<GrantRef> refs) {
    if (refs.empty()) return host_fault(EINVAL, "adopt no pages");
    TRY(check_sealed(descriptor.get(), refs.size() * page_size));
    if ((::fcntl(descriptor.get(), F_GET_SEALS) & F_SEAL_FUTURE_WRITE) != 0)
        return unsupported("adopt pages that are shared read-only: nobody can map them writable again");
    Mapping memory = TRY(Mapping::map(descriptor.get(), refs.size(), Access::read_write));
    return SharedPages(*this, peer, Access::read_write, memory.release(), std::move(refs), std::move(descriptor));
}

Result<SharedPages> LocalHypervisor::reclaim(GrantRef first) {
    auto answer =
        TRY((connection_.call<ReclaimReply>(Op::reclaim, RefRequest{.head = {}, .ref = first.raw, .zero = 0}, 1)));
    const bool read_only = answer.body.read_only != 0;
    Mapping memory;
    if (!read_only) {
        TRY(check_sealed(answer.descriptors[0].get(), answer.body.pages * page_size));
        memory = TRY(Mapping::map(answer.descriptors[0].get(), answer.body.pages, Access::read_write));
    }
    return own(DomainId(answer.body.peer), read_only ? Access::read_only : Access::read_write, std::move(memory), first,
               answer.body.pages, std::move(answer.descriptors[0]));
}

Result<End> LocalHypervisor::end(GrantRef first) {
    const auto answer =
        TRY((connection_.call<EndReply>(Op::end, RefRequest{.head = {}, .ref = first.raw, .zero = 0}, 0)));
    return answer.body.still_mapped != 0 ? End::still_mapped : End::ended;
}

Result<End> LocalHypervisor::end(SharedPages& pages) {
    const GrantRef first = pages.refs().front();
    const SharedSpan memory = pages.memory();
    const auto owned = owned_.find(first.raw);
    // An adopted copy: another mapping than the one that was shared. It goes, the grant stays.
    const bool ours = owned != owned_.end() && owned->second == detail::SharedAccess::base(memory);
    if (ours) {
        const End tried = TRY(end(first));
        if (tried == End::still_mapped) return tried;
        owned_.erase(owned);
    }
    (void)Mapping::adopt(memory);
    return End::ended;
}

void LocalHypervisor::quarantine(SharedPages&& pages) {
    const GrantRef first = pages.refs().front();
    owned_.erase(first.raw);
    quarantine_.push_back({first, pages.refs().size(), Mapping::adopt(pages.memory())});
    disown(pages);
}

std::size_t LocalHypervisor::quarantined_pages() const {
    std::size_t pages = 0;
    for (const Quarantined& entry : quarantine_) pages += entry.pages;
    return pages;
}

void LocalHypervisor::retry_quarantine() {
    std::erase_if(quarantine_, [this](const Quarantined& entry) {
        const Result<End> tried = end(entry.first);
        return tried && *tried == End::ended;
    });
}

// ---- Their pages ---------------------------------------------------------------------------------------------------

Result<MappedPages> LocalHypervisor::map(DomainId peer, std::span<const GrantRef> refs, Access access) {
    if (refs.empty() || refs.size() > limits_.max_grants) return host_fault(EINVAL, "references of one map");
    Mapping memory = TRY(Mapping::reserve(refs.size()));
    Regions regions;
    for (std::size_t at = 0; at < refs.size(); at += refs_per_map) {
        const auto chunk = refs.subspan(at, std::min(refs_per_map, refs.size() - at));
        if (const Status done = map_chunk(peer, chunk, access, memory, at, regions); !done) {
            memory = {};
            release(regions);
            return std::unexpected(done.error());
        }
    }
    const std::uint64_t handle = next_handle_++;
    maps_[handle] = std::move(regions);
    return MappedPages(*this, handle, memory.release());
}

// Adds the regions that this map uses to `regions`, each once, and counts them in uses_.
Status LocalHypervisor::map_chunk(DomainId peer, std::span<const GrantRef> refs, Access access, Mapping& memory,
                                  std::size_t at_page, Regions& regions) {
    MapRequest request{.head = {},
                       .peer = peer.raw,
                       .read_only = access == Access::read_only,
                       .count = static_cast<std::uint32_t>(refs.size()),
                       .refs = {}};
    for (std::size_t i = 0; i < refs.size(); ++i) request.refs[i] = refs[i].raw;
    auto answer = TRY((connection_.call_any<MapReply>(Op::map, request)));
    const auto mapped = std::span(answer.body.refs).first(refs.size());
    for (const MappedRef& ref : mapped) {
        if (ref.index >= answer.descriptors.size()) return host_fault(EPROTO, "map");
        if (regions.insert(ref.region).second) ++uses_[ref.region];
    }
    for (const Fd& fd : answer.descriptors) TRY(check_sealed(fd.get(), page_size));
    for (std::size_t i = 0; i < mapped.size();) {  // neighbours of one region in one go
        std::size_t run = 1;
        while (i + run < mapped.size() && mapped[i + run].index == mapped[i].index &&
               mapped[i + run].page == mapped[i].page + run)
            ++run;
        TRY(memory.put(at_page + i, answer.descriptors[mapped[i].index].get(), mapped[i].page, run, access));
        i += run;
    }
    return {};
}

void LocalHypervisor::unmap(std::uint64_t handle, SharedSpan memory) {
    (void)Mapping::adopt(
        memory);  // first the memory, then the count: the other way round the peer could reuse its pages
    const auto found = maps_.find(handle);
    if (found == maps_.end()) return;
    release(found->second);
    maps_.erase(found);
}

void LocalHypervisor::release(const Regions& regions) {
    UnmapRequest request{};
    const auto flush = [&] {
        if (request.count != 0) (void)connection_.call<Reply>(Op::unmap, request, 0);
        request.count = 0;
    };
    for (std::uint64_t region : regions) {
        const auto use = uses_.find(region);
        if (use == uses_.end() || --use->second > 0) continue;
        uses_.erase(use);
        request.regions[request.count++] = region;
        if (request.count == regions_per_unmap) flush();
    }
    flush();
}

// One pass over shared memory each way; peer to peer is one copy from their page to their page.
Status LocalHypervisor::copy(std::span<GrantCopy> batch) {
    using enum GrantCopy::Direction;
    for (GrantCopy& element : batch) {
        SharedSpan source, target;
        if (element.direction != to_peer) {
            source = view(element.source, Access::read_only, element.status);
            if (element.status != GrantStatus::okay) continue;
        }
        if (element.direction != from_peer) {
            target = view(element.target, Access::read_write, element.status);
            if (element.status != GrantStatus::okay) continue;
        }
        switch (element.direction) {
            case from_peer: source.copy_out(0, {element.local, source.size()}); break;
            case to_peer: target.copy_in(0, {element.local, target.size()}); break;
            case peer_to_peer:
                if (source.size() != target.size())
                    element.status = GrantStatus::bad_range;
                else if (!source.empty())
                    std::memmove(detail::SharedAccess::base(target), detail::SharedAccess::base(source), source.size());
                break;
        }
    }
    return {};
}

// ---- Events --------------------------------------------------------------------------------------------------------

Result<EventChannel> LocalHypervisor::allocate_unbound(DomainId peer) {
    auto answer = TRY(
        (connection_.call<PortReply>(Op::allocate_unbound, PeerRequest{.head = {}, .peer = peer.raw, .zero = {}}, 2)));
    return EventChannel(EventChannel::Kind::local, peer, Port(answer.body.port), std::move(answer.descriptors[0]),
                        std::move(answer.descriptors[1]));
}

Result<EventChannel> LocalHypervisor::bind_interdomain(DomainId peer, Port remote) {
    auto answer = TRY((connection_.call<PortReply>(
        Op::bind_interdomain, BindRequest{.head = {}, .peer = peer.raw, .zero = 0, .port = remote.raw}, 2)));
    return EventChannel(EventChannel::Kind::local, peer, Port(answer.body.port), std::move(answer.descriptors[0]),
                        std::move(answer.descriptors[1]));
}

void LocalHypervisor::close(EventChannel channel) {
    if (!channel) return;
    (void)connection_.call<Reply>(Op::close_port, PortRequest{.head = {}, .port = channel.port().raw, .zero = 0}, 0);
}

Result<Fd> LocalHypervisor::restrict_to(std::span<const DomainId> peers) {
    if (peers.size() > peers_per_restriction)
        return unsupported("a restricted connection with more peers than the local hypervisor's limit");
    RestrictRequest request{.head = {}, .count = static_cast<std::uint32_t>(peers.size()), .zero = 0, .peers = {}};
    for (std::size_t i = 0; i < peers.size(); ++i) request.peers[i] = peers[i].raw;
    auto answer = TRY((connection_.call<Reply>(Op::restrict_to, request, 1)));
    return std::move(answer.descriptors[0]);
}

Result<std::unique_ptr<Hypervisor>> greeted(Connection connection, bool successor) {
    std::signal(SIGPIPE, SIG_IGN);
    auto port = std::make_unique<LocalHypervisor>(std::move(connection));
    TRY(port->greet(successor));
    return port;
}

}  // namespace

Result<std::unique_ptr<Hypervisor>> open(const std::string& hypervisor_socket) {
    return greeted(TRY(Connection::open(hypervisor_socket)), false);
}

Result<std::unique_ptr<Hypervisor>> open_restricted(Fd connection) {
    return greeted(Connection(std::move(connection)), true);
}

}  // namespace caisson::local
