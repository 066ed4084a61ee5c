// What a domain may ask of its hypervisor: grants and event channels. Two ports implement it, ring/local/ and
// ring/xen/; tests/conformance/ runs the same promises against both.
//
// A Hypervisor is one domain's view of the world; there are no globals, so one test process can be several domains. It
// is the control plane only: once pages are mapped and a channel is bound, data flows through plain memory and a notify
// is one write.
//
// Threads: a Hypervisor and everything it hands out belong to one thread.
// Lifetime: SharedPages and MappedPages must be destroyed before the Hypervisor they came from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "protocols/words.h"
#include "ring/event_channel.h"
#include "ring/fd.h"
#include "ring/memory.h"

namespace caisson {

class Hypervisor;

enum class Access : std::uint8_t { read_only, read_write };

// What this port can do. A backend publishes a feature only when the port can honour it.
struct Capabilities {
    bool contiguous_map = false;  // several references map to consecutive addresses
    bool copy = false;            // GNTTABOP_copy
    bool read_only_map = false;   // a read-only grant cannot be mapped writable, nor made so afterwards
    bool direct_view = false;     // view() works: a grant can be reached in place, without a map of its own
    bool end_tells = true;        // end() knows of a peer's mapping; else it always says ended, and the port itself
                                  // keeps the pages from reuse until the peer has let go
    bool peers_enforced = true;   // who holds the result of restrict_to() reaches the peers named, and nobody else
    std::uint32_t max_pages_per_share = 0;
};

enum class End : std::uint8_t { ended, still_mapped };

// Pages of ours that one peer may map or copy. Zeroed when made; nothing else ever lives in them.
//
// end() is one atomic try (XSA-396: never "ask, then end"). The destructor tries once; pages that the peer still has
// mapped go to the hypervisor's quarantine, are tried again later, and are never reused meanwhile.
class SharedPages {
  public:
    SharedPages() = default;
    SharedPages(Hypervisor& owner, DomainId peer, Access access, SharedSpan memory, std::vector<GrantRef> refs, Fd fd)
        : owner_(&owner), peer_(peer), access_(access), memory_(memory), refs_(std::move(refs)), fd_(std::move(fd)) {}
    SharedPages(SharedPages&& other) noexcept { *this = std::move(other); }
    SharedPages& operator=(SharedPages&& other) noexcept;
    ~SharedPages();

    explicit operator bool() const { return owner_ != nullptr; }
    DomainId peer() const { return peer_; }
    Access access() const { return access_; }                 // the peer's
    SharedSpan memory() const { return memory_; }             // empty after reclaim() of read-only pages
    std::span<const GrantRef> refs() const { return refs_; }  // one a page, in order

    // On success the pages are unmapped here too and the object is empty.
    Result<End> end();

    // The pages as a descriptor, for another process of this domain: see Hypervisor::adopt. Borrowed.
    int descriptor() const { return fd_.get(); }

  private:
    friend class Hypervisor;
    void let_go() noexcept;  // what the destructor does; the object is empty afterwards
    Hypervisor* owner_ = nullptr;
    DomainId peer_{};
    Access access_ = Access::read_write;
    SharedSpan memory_;
    std::vector<GrantRef> refs_;
    Fd fd_;
};

// A peer's pages, mapped here at consecutive addresses. Unmapped on destruction.
class MappedPages {
  public:
    MappedPages() = default;
    MappedPages(Hypervisor& owner, std::uint64_t handle, SharedSpan memory)
        : owner_(&owner), handle_(handle), memory_(memory) {}
    MappedPages(MappedPages&& other) noexcept { *this = std::move(other); }
    MappedPages& operator=(MappedPages&& other) noexcept;
    ~MappedPages();

    explicit operator bool() const { return owner_ != nullptr; }
    SharedSpan memory() const { return memory_; }

  private:
    Hypervisor* owner_ = nullptr;
    std::uint64_t handle_ = 0;
    SharedSpan memory_;
};

// Bytes of a peer's granted page, by reference. offset + length <= page_size.
struct GrantRange {
    DomainId domain{};
    GrantRef ref{};
    std::uint16_t offset = 0;
    std::uint16_t length = 0;
};

enum class GrantStatus : std::uint8_t {
    okay,           // GNTST_okay
    bad_reference,  // no such grant, ended, not to us, or read-only: Xen answers GNTST_general_error to most of these
    bad_range,      // GNTST_bad_copy_arg: crosses the page's end
};

// One element of a batched copy. Exactly one of the two ends may be local; both may be grants (guest to guest: one
// copy). `local` must have `length` bytes.
struct GrantCopy {
    enum class Direction : std::uint8_t { from_peer, to_peer, peer_to_peer } direction = Direction::from_peer;
    GrantRange source{};                     // from_peer, peer_to_peer
    GrantRange target{};                     // to_peer, peer_to_peer
    std::byte* local = nullptr;              // private memory: from_peer writes it, to_peer reads it
    GrantStatus status = GrantStatus::okay;  // set by copy()
};

class Hypervisor {
  public:
    virtual ~Hypervisor() = default;
    Hypervisor() = default;
    Hypervisor(const Hypervisor&) = delete;
    Hypervisor& operator=(const Hypervisor&) = delete;

    virtual DomainId self() const = 0;
    virtual Capabilities capabilities() const = 0;

    // A descriptor that hangs up (POLLHUP) when the connection to the hypervisor is lost; -1: there is none that could
    // be.
    virtual int connection() const { return -1; }

    // ---- Grants ----
    // New zeroed pages, granted to `peer`. Fails with ENOSPC when the grant quota of this domain is used up.
    virtual Result<SharedPages> share(DomainId peer, std::uint32_t pages, Access access) = 0;

    // The same pages in another process of this domain: the descriptor travelled over a socket. The copy ends nothing
    // when it is destroyed: whoever shared the pages ends them.
    virtual Result<SharedPages> adopt(DomainId peer, Fd descriptor, std::vector<GrantRef> refs) = 0;

    // Takes over pages that a predecessor shared through the same connection before it died, named by their first
    // reference. Pages shared read-only come back without memory (nobody can map them writable again) and can only be
    // ended.
    virtual Result<SharedPages> reclaim(GrantRef first) = 0;

    // Maps a peer's pages contiguously; all or nothing, an error names the first reference that failed (fault peer).
    virtual Result<MappedPages> map(DomainId peer, std::span<const GrantRef> refs, Access access) = 0;

    // Copies, with a status per element; fails as a whole only when the port itself is broken. Never throws away the
    // status of one element because of another (XSA-361, XSA-365).
    virtual Status copy(std::span<GrantCopy> batch) = 0;

    // Where capabilities().direct_view: the bytes of a grant in place, for one use within this call of the event loop.
    // Counts as a copy does, not as a mapping: it does not keep the peer from ending the grant. An empty span and the
    // reason in `status` when it cannot be had. Cheap: a table look-up but for the first use of a region.
    virtual SharedSpan view(const GrantRange& range, Access access, GrantStatus& status) = 0;

    // ---- Events ----
    // EVTCHNOP_alloc_unbound: a port of ours that `peer` may bind.
    virtual Result<EventChannel> allocate_unbound(DomainId peer) = 0;
    // EVTCHNOP_bind_interdomain. One event is pending here right after the bind, in place of those that the peer sent
    // before; the peer gets none.
    virtual Result<EventChannel> bind_interdomain(DomainId peer, Port remote) = 0;
    // EVTCHNOP_close. The peer's end becomes unbound again, for us to bind anew.
    virtual void close(EventChannel channel) = 0;

    // ---- Handing less power on ----
    // A descriptor through which a worker can do the grant calls above with these peers, and nothing else; see
    // open_restricted(). It stays good when the process that uses it dies, so that the next one can go on; what was
    // mapped or shared through it is released when the last copy of it is closed.
    virtual Result<Fd> restrict_to(std::span<const DomainId> peers) = 0;

    // ---- Pages that could not be ended yet ----
    virtual std::size_t quarantined_pages() const = 0;
    virtual void retry_quarantine() = 0;

  protected:
    friend class SharedPages;
    friend class MappedPages;
    virtual Result<End> end(SharedPages& pages) = 0;
    virtual void quarantine(SharedPages&& pages) = 0;
    virtual void unmap(std::uint64_t handle, SharedSpan memory) = 0;
    // For quarantine(): from here on the pages are the port's, and `pages` is empty.
    static void disown(SharedPages& pages);
};

}  // namespace caisson
