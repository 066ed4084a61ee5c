#include "tests/conformance/far_hypervisor.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "ring/detail/shared_access.h"

namespace caisson::conformance {

namespace {

struct Region {
    FarDomain* domain;
    std::string handle;
    std::size_t bytes;
};
std::map<const std::byte*, Region> regions;                    // by the addresses that stand for them
std::map<ino_t, std::pair<FarDomain*, std::string>> channels;  // by the file that stands for them

std::string word(Access access) { return access == Access::read_write ? "rw" : "ro"; }

// Addresses that nobody can read or write: a case that touches them directly dies at once.
SharedSpan reserve(FarDomain& domain, std::string handle, std::size_t bytes) {
    void* base = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    regions[static_cast<std::byte*>(base)] = {&domain, std::move(handle), bytes};
    return detail::SharedAccess::span(static_cast<std::byte*>(base), bytes);
}
void give_back(SharedSpan memory) {
    regions.erase(detail::SharedAccess::base(memory));
    ::munmap(detail::SharedAccess::base(memory), memory.size());
}

Fd stand_in() { return Fd(::memfd_create("far", MFD_CLOEXEC)); }
ino_t identity(int fd) {
    struct stat about{};
    return ::fstat(fd, &about) == 0 ? about.st_ino : 0;
}

class FarHypervisor final : public Hypervisor {
  public:
    FarHypervisor(std::shared_ptr<FarDomain> domain, Capabilities capabilities)
        : domain_(std::move(domain)), capabilities_(capabilities) {}

    DomainId self() const override { return domain_->id(); }
    Capabilities capabilities() const override { return capabilities_; }

    Result<SharedPages> share(DomainId peer, std::uint32_t pages, Access access) override {
        return shared(peer, access, "share " + id(peer) + " " + std::to_string(pages) + " " + word(access));
    }
    // The descriptor stands for nothing: the agent has the real one.
    Result<SharedPages> adopt(DomainId peer, Fd, std::vector<GrantRef> refs) override {
        return shared(peer, Access::read_write, "adopt " + id(peer) + " " + handles_.at(refs.at(0).raw));
    }
    Result<MappedPages> map(DomainId peer, std::span<const GrantRef> refs, Access access) override {
        std::string request = "map " + id(peer) + " " + word(access);
        for (const GrantRef ref : refs) request += " " + std::to_string(ref.raw);
        const Words answer = TRY(domain_->call(request));
        return MappedPages(*this, 0, reserve(*domain_, answer.at(0), refs.size() * page_size));
    }

    Result<EventChannel> allocate_unbound(DomainId peer) override { return channel(peer, "unbound " + id(peer)); }
    Result<EventChannel> bind_interdomain(DomainId peer, Port remote) override {
        return channel(peer, "bind " + id(peer) + " " + std::to_string(remote.raw));
    }
    void close(EventChannel channel) override {
        const FarThing thing = far_thing(channel);
        if (thing.domain != nullptr) (void)thing.domain->call("close " + thing.handle);
    }

    std::size_t quarantined_pages() const override { return std::stoul(domain_->need("quarantine count").at(0)); }
    void retry_quarantine() override { domain_->need("quarantine retry"); }

    // The cases ask these of the domain that they run in.
    Result<SharedPages> reclaim(GrantRef) override { return unsupported("reclaim in another domain"); }
    Status copy(std::span<GrantCopy>) override { return unsupported("copy in another domain"); }
    SharedSpan view(const GrantRange&, Access, GrantStatus& status) override {
        status = GrantStatus::bad_reference;
        return {};
    }
    Result<Fd> restrict_to(std::span<const DomainId>) override { return unsupported("restrict in another domain"); }

  protected:
    Result<End> end(SharedPages& pages) override {
        const SharedSpan memory = pages.memory();
        const FarThing thing = far_thing(memory);
        const Words answer = TRY(domain_->call("end " + thing.handle));
        if (answer.at(0) == "mapped") return End::still_mapped;
        (void)domain_->call("drop " + thing.handle);
        give_back(memory);
        return End::ended;
    }
    void quarantine(SharedPages&& pages) override {
        (void)domain_->call("drop " + far_thing(pages.memory()).handle);
        give_back(pages.memory());
        disown(pages);
    }
    void unmap(std::uint64_t, SharedSpan memory) override {
        (void)domain_->call("drop " + far_thing(memory).handle);
        give_back(memory);
    }

  private:
    static std::string id(DomainId peer) { return std::to_string(peer.raw); }

    Result<SharedPages> shared(DomainId peer, Access access, const std::string& request) {
        const Words answer = TRY(domain_->call(request));
        std::vector<GrantRef> refs;
        for (std::size_t i = 1; i < answer.size(); ++i)
            refs.emplace_back(static_cast<std::uint32_t>(std::stoul(answer[i])));
        handles_.try_emplace(refs.at(0).raw, answer[0]);
        if (request.starts_with("share")) handles_[refs[0].raw] = answer[0];
        const SharedSpan memory = reserve(*domain_, answer[0], refs.size() * page_size);
        return SharedPages(*this, peer, access, memory, std::move(refs), stand_in());
    }
    Result<EventChannel> channel(DomainId peer, const std::string& request) {
        const Words answer = TRY(domain_->call(request));
        Fd fd = stand_in();
        channels[identity(fd.get())] = {domain_.get(), answer.at(0)};
        const Port port(static_cast<std::uint32_t>(std::stoul(answer.at(1))));
        return EventChannel(EventChannel::Kind::local, peer, port, std::move(fd), {});
    }

    std::shared_ptr<FarDomain> domain_;
    Capabilities capabilities_;
    std::map<std::uint32_t, std::string> handles_;  // of what was shared, by its first reference
};

}  // namespace

std::unique_ptr<Hypervisor> make_far_hypervisor(std::shared_ptr<FarDomain> domain, Capabilities capabilities) {
    return std::make_unique<FarHypervisor>(std::move(domain), capabilities);
}

FarThing far_thing(SharedSpan memory) {
    const std::byte* base = detail::SharedAccess::base(memory);
    const auto after = regions.upper_bound(base);
    if (after == regions.begin()) return {};
    const auto& [start, region] = *std::prev(after);
    const auto offset = static_cast<std::size_t>(base - start);
    if (offset >= region.bytes) return {};
    return {.domain = region.domain, .handle = region.handle, .offset = offset};
}

FarThing far_thing(const EventChannel& channel) {
    const auto found = channel ? channels.find(identity(channel.wait_fd())) : channels.end();
    if (found == channels.end()) return {};
    return {.domain = found->second.first, .handle = found->second.second};
}

}  // namespace caisson::conformance
