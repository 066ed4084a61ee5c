// protocols/net.h against libxen-dev's netif.h. Fails at compile time; the test only says that it was compiled.
#include <catch2/catch.hpp>
#include <cstddef>

#include "protocols/net_control.h"
#include "ring/shared_ring.h"
#include "tests/abi/xen_ring_headers.h"

namespace net = caisson::net;

#define SAME_FIELD(ours, theirs, field) \
    static_assert(offsetof(ours, field) == offsetof(theirs, field) && sizeof(ours::field) == sizeof(theirs::field))
#define SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs))

SAME_SIZE(net::TxRequest, netif_tx_request);
SAME_FIELD(net::TxRequest, netif_tx_request, gref);
SAME_FIELD(net::TxRequest, netif_tx_request, offset);
SAME_FIELD(net::TxRequest, netif_tx_request, flags);
SAME_FIELD(net::TxRequest, netif_tx_request, id);
SAME_FIELD(net::TxRequest, netif_tx_request, size);
SAME_SIZE(net::TxResponse, netif_tx_response);
SAME_FIELD(net::TxResponse, netif_tx_response, status);
SAME_SIZE(net::RxRequest, netif_rx_request);
SAME_FIELD(net::RxRequest, netif_rx_request, gref);
SAME_SIZE(net::RxResponse, netif_rx_response);
SAME_FIELD(net::RxResponse, netif_rx_response, offset);
SAME_FIELD(net::RxResponse, netif_rx_response, flags);
SAME_FIELD(net::RxResponse, netif_rx_response, status);
SAME_SIZE(net::Extra, netif_extra_info);
static_assert(offsetof(net::Extra, data) == offsetof(netif_extra_info, u));
SAME_SIZE(net::ControlRequest, xen_netif_ctrl_request);
SAME_FIELD(net::ControlRequest, xen_netif_ctrl_request, data);
SAME_SIZE(net::ControlResponse, xen_netif_ctrl_response);
SAME_FIELD(net::ControlResponse, xen_netif_ctrl_response, data);

static_assert(net::slots_min == XEN_NETIF_NR_SLOTS_MIN && net::max_packet == XEN_NETIF_MAX_TX_SIZE);
static_assert(net::tx_flag::csum_blank == NETTXF_csum_blank && net::tx_flag::data_validated == NETTXF_data_validated &&
              net::tx_flag::more_data == NETTXF_more_data && net::tx_flag::extra_info == NETTXF_extra_info);
static_assert(net::rx_flag::csum_blank == NETRXF_csum_blank && net::rx_flag::data_validated == NETRXF_data_validated &&
              net::rx_flag::more_data == NETRXF_more_data && net::rx_flag::extra_info == NETRXF_extra_info &&
              net::rx_flag::gso_prefix == NETRXF_gso_prefix);
static_assert(net::status::dropped == NETIF_RSP_DROPPED && net::status::error == NETIF_RSP_ERROR &&
              net::status::okay == NETIF_RSP_OKAY && net::status::null == NETIF_RSP_NULL);
static_assert(net::extra_type::gso == XEN_NETIF_EXTRA_TYPE_GSO && net::extra_type::hash == XEN_NETIF_EXTRA_TYPE_HASH &&
              net::extra_type::mcast_add == XEN_NETIF_EXTRA_TYPE_MCAST_ADD &&
              net::extra_type::mcast_del == XEN_NETIF_EXTRA_TYPE_MCAST_DEL);
static_assert(net::hash_type::ipv4 == XEN_NETIF_CTRL_HASH_TYPE_IPV4 &&
              net::hash_type::ipv6_tcp == XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP);
static_assert(static_cast<int>(net::ControlType::set_hash_algorithm) == XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM &&
              static_cast<int>(net::ControlType::del_gref_mapping) == XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING);
static_assert(net::control_status::buffer_overflow == XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW);

static_assert(caisson::ring_slot_bytes<net::TxRing> == sizeof(netif_tx_sring_entry));
static_assert(caisson::ring_slot_bytes<net::RxRing> == sizeof(netif_rx_sring_entry));
static_assert(caisson::ring_slot_bytes<net::ControlRing> == sizeof(xen_netif_ctrl_sring_entry));
static_assert(caisson::ring_slots<net::TxRing>(4096) == net::ring_slots);
static_assert(caisson::ring_slots<net::RxRing>(4096) == net::ring_slots);

TEST_CASE("the net device's layout is that of xen/io/netif.h") { SUCCEED(); }
