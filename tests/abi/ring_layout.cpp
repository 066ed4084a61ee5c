// The shared ring and XenbusState are laid out and counted as Xen's headers say. All of it at compile time.
#include <catch2/catch.hpp>

#include "protocols/xenbus.h"
#include "ring/shared_ring.h"
#include "tests/abi/xen_ring_headers.h"

namespace caisson {
namespace {

struct NetTx {
    using Request = netif_tx_request;
    using Response = netif_tx_response;
};
struct NetRx {
    using Request = netif_rx_request;
    using Response = netif_rx_response;
};
struct NetCtrl {
    using Request = xen_netif_ctrl_request;
    using Response = xen_netif_ctrl_response;
};

// ring/shared_ring.h: 0 req_prod, 4 req_event, 8 rsp_prod, 12 rsp_event, slots from 64.
template <class Sring>
constexpr bool header_is_xens =
    offsetof(Sring, req_prod) == 0 && offsetof(Sring, req_event) == 4 && offsetof(Sring, rsp_prod) == 8 &&
    offsetof(Sring, rsp_event) == 12 && offsetof(Sring, ring) == ring_header_bytes && sizeof(RING_IDX) == 4;
static_assert(header_is_xens<netif_tx_sring> && header_is_xens<netif_rx_sring> && header_is_xens<xen_netif_ctrl_sring>);

static_assert(ring_slot_bytes<NetTx> == sizeof(netif_tx_sring_entry));
static_assert(ring_slot_bytes<NetRx> == sizeof(netif_rx_sring_entry));
static_assert(ring_slot_bytes<NetCtrl> == sizeof(xen_netif_ctrl_sring_entry));

// RING_SIZE for one page and for rings of several: the largest power of two that fits.
template <class P>
constexpr bool slots_are(std::size_t one, std::size_t two, std::size_t sixteen) {
    return ring_slots<P>(page_size) == one && ring_slots<P>(2 * page_size) == two &&
           ring_slots<P>(16 * page_size) == sixteen;
}
static_assert(slots_are<NetTx>(__CONST_RING_SIZE(netif_tx, 4096), __CONST_RING_SIZE(netif_tx, 8192),
                               __CONST_RING_SIZE(netif_tx, 65536)));
static_assert(slots_are<NetRx>(__CONST_RING_SIZE(netif_rx, 4096), __CONST_RING_SIZE(netif_rx, 8192),
                               __CONST_RING_SIZE(netif_rx, 65536)));
static_assert(slots_are<NetCtrl>(__CONST_RING_SIZE(xen_netif_ctrl, 4096), __CONST_RING_SIZE(xen_netif_ctrl, 8192),
                                 __CONST_RING_SIZE(xen_netif_ctrl, 65536)));
static_assert(ring_slots<NetTx>(ring_header_bytes) == 0, "no room for a slot is no ring, not one of size 2^32");

constexpr bool is(XenbusState ours, xenbus_state xens) { return static_cast<int>(ours) == static_cast<int>(xens); }
static_assert(is(XenbusState::unknown, XenbusStateUnknown) && is(XenbusState::initialising, XenbusStateInitialising) &&
              is(XenbusState::init_wait, XenbusStateInitWait) && is(XenbusState::initialised, XenbusStateInitialised) &&
              is(XenbusState::connected, XenbusStateConnected) && is(XenbusState::closing, XenbusStateClosing) &&
              is(XenbusState::closed, XenbusStateClosed) && is(XenbusState::reconfiguring, XenbusStateReconfiguring) &&
              is(XenbusState::reconfigured, XenbusStateReconfigured));

}  // namespace

TEST_CASE("a fresh ring of ours is what SHARED_RING_INIT makes") {
    alignas(64) std::byte ours[page_size];
    alignas(64) std::byte xens[page_size];
    std::memset(ours, 0xA5, sizeof ours);  // whatever was there before must be gone
    std::memset(xens, 0, sizeof xens);
    RingIndices indices{.consumed = 7, .produced = 9};
    FrontRing<NetTx>::initialise(detail::SharedAccess::span(ours, sizeof ours), indices);
    auto* shared = reinterpret_cast<netif_tx_sring*>(xens);
    SHARED_RING_INIT(shared);
    CHECK(std::memcmp(ours, xens, sizeof ours) == 0);
    CHECK(indices.consumed == 0);
    CHECK(indices.produced == 0);
}

}  // namespace caisson
