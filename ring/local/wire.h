// The messages between a domain's port and the local hypervisor's broker. SOCK_SEQPACKET: one request, one reply.
//
// Every message is one fixed struct, host byte order (both ends run on one machine), every byte named. The sender of a
// request is the domain whose socket it came through; no field says who is asking (attacks: impersonation).
// Descriptors travel as SCM_RIGHTS: to the broker only with create_domain, from it as written at each reply.
#pragma once

#include <cstdint>

#include "protocols/words.h"

namespace caisson::local {

inline constexpr std::uint32_t wire_version = 1;
inline constexpr std::size_t largest_message = 4096;
inline constexpr std::size_t refs_per_map = 128;  // also the most descriptors of one reply; the kernel's limit is 253
inline constexpr std::size_t regions_per_unmap = 128;
inline constexpr std::size_t peers_per_restriction = 32;
inline constexpr std::size_t domains_per_list = 64;

enum class Op : std::uint32_t {
    hello = 1,
    // Grants. A region is what one share() made: consecutive references, one memfd.
    share,     // ShareRequest -> ShareReply + the pages, writable
    activate,  // RefRequest -> Reply. A read-only region: from here on nobody can map it writable; peers may have it
    reclaim,   // RefRequest -> ReclaimReply + the pages, writable unless the region is read-only
    end,       // RefRequest -> EndReply
    map,       // MapRequest -> MapReply + one descriptor for each distinct region
    unmap,     // UnmapRequest -> Reply
    fetch,     // FetchRequest -> FetchReply + the pages, for copy() and view(): not counted as a mapping
    status,    // PeerRequest -> StatusReply + the status page of what that peer grants to us
    // Events.
    allocate_unbound,  // PeerRequest -> PortReply + {wait, notify}
    bind_interdomain,  // BindRequest -> PortReply + {wait, notify}
    close_port,        // PortRequest -> Reply
    restrict_to,       // RestrictRequest -> Reply + a connected socket
    // Dom0 only.
    create_domain,   // CreateRequest + {hypervisor listener, xenstored listener[, pidfd]} -> DomainReply
    destroy_domain,  // DestroyRequest -> Reply
    list_domains,    // ListRequest -> ListReply
};

// ---- Every message starts with one of these ----

struct Request {
    std::uint32_t op;
    std::uint32_t zero;
    std::uint64_t id;  // comes back in the reply; a successor discards replies to its predecessor by it
};

struct Reply {
    std::uint64_t id;
    std::uint64_t got;    // the offending value, where there is one
    std::int32_t err;     // 0: done, and the rest of the message is meaningful
    std::uint32_t fault;  // Fault
    char reason[64];      // what was refused, and which quota: text with an end
};

// ---- The status page of (granter, peer): one word for each reference, written by the broker only ----

// 0: not granted to that peer. Otherwise bit 0 is set, bit 1 says writable, and the rest counts regions, so that a
// reference that was ended and granted again has another word than before.
inline constexpr std::uint32_t status_granted = 1, status_writable = 2, status_step = 4;

// ---- Bodies ----

struct HelloRequest {
    Request head;
    std::uint32_t version;
    std::uint32_t successor;  // 1: whoever used this connection before is dead, and its mappings with it
};
struct HelloReply {
    Reply head;
    std::uint16_t domain;
    std::uint16_t restricted;
    std::uint32_t generation;
    std::uint32_t max_pages_per_share;
    std::uint32_t max_grants;
};
struct PeerRequest {
    Request head;
    std::uint16_t peer;
    std::uint16_t zero[3];
};
struct RefRequest {
    Request head;
    std::uint32_t ref;  // the first of a region
    std::uint32_t zero;
};
struct ShareRequest {
    Request head;
    std::uint16_t peer;
    std::uint16_t read_only;
    std::uint32_t pages;
};
struct ShareReply {
    Reply head;
    std::uint32_t first;
    std::uint32_t zero;
};
struct ReclaimReply {
    Reply head;
    std::uint16_t peer;
    std::uint16_t read_only;
    std::uint32_t pages;
};
struct EndReply {
    Reply head;
    std::uint32_t still_mapped;
    std::uint32_t zero;
};
struct MapRequest {
    Request head;
    std::uint16_t peer;
    std::uint16_t read_only;
    std::uint32_t count;
    std::uint32_t refs[refs_per_map];
};
struct MappedRef {
    std::uint64_t region;
    std::uint32_t page;   // within the region
    std::uint32_t index;  // of the region's descriptor in this reply
};
struct MapReply {
    Reply head;
    std::uint32_t count;
    std::uint32_t zero;
    MappedRef refs[refs_per_map];
};
struct UnmapRequest {
    Request head;
    std::uint32_t count;
    std::uint32_t zero;
    std::uint64_t regions[regions_per_unmap];
};
struct FetchRequest {
    Request head;
    std::uint16_t peer;
    std::uint16_t zero;
    std::uint32_t ref;
};
struct FetchReply {
    Reply head;
    std::uint32_t generation;  // of the granter: another one than before means another status page
    std::uint32_t first, pages;
    std::uint32_t status;  // the word that all references of this region have while it lives
};
struct StatusReply {
    Reply head;
    std::uint32_t generation;
    std::uint32_t entries;
};
struct BindRequest {
    Request head;
    std::uint16_t peer;
    std::uint16_t zero;
    std::uint32_t port;
};
struct PortRequest {
    Request head;
    std::uint32_t port;
    std::uint32_t zero;
};
struct PortReply {
    Reply head;
    std::uint32_t port;
    std::uint32_t zero;
};
struct RestrictRequest {
    Request head;
    std::uint32_t count;
    std::uint32_t zero;
    std::uint16_t peers[peers_per_restriction];
};
struct CreateRequest {
    Request head;
    std::uint32_t pidfd;  // 1: the third descriptor is one
    std::uint32_t zero;
};
struct DomainReply {
    Reply head;
    std::uint16_t domain;
    std::uint16_t zero;
    std::uint32_t generation;
};
struct DestroyRequest {
    Request head;
    std::uint16_t domain;
    std::uint16_t zero;
    std::uint32_t generation;  // 0: whichever lives
};
struct ListRequest {
    Request head;
    std::uint32_t from;  // the lowest domain id wanted
    std::uint32_t zero;
};
struct ListedDomain {
    std::uint16_t domain;
    std::uint16_t dying;
    std::uint32_t generation;
    std::uint32_t grants, regions, mappings, ports, connections, quarantined;
};
struct ListReply {
    Reply head;
    std::uint32_t count;
    std::uint32_t zero;
    ListedDomain domains[domains_per_list];
};

static_assert(Wire<HelloRequest> && Wire<HelloReply> && Wire<PeerRequest> && Wire<RefRequest> && Wire<ShareRequest> &&
              Wire<ShareReply> && Wire<ReclaimReply> && Wire<EndReply> && Wire<MapRequest> && Wire<MapReply> &&
              Wire<UnmapRequest> && Wire<FetchRequest> && Wire<FetchReply> && Wire<StatusReply> && Wire<BindRequest> &&
              Wire<PortRequest> && Wire<PortReply> && Wire<RestrictRequest> && Wire<CreateRequest> &&
              Wire<DomainReply> && Wire<DestroyRequest> && Wire<ListRequest> && Wire<ListReply>);
static_assert(sizeof(MapReply) <= largest_message && sizeof(ListReply) <= largest_message);

}  // namespace caisson::local
