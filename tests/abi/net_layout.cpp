// protocols/net*.h against netif.h: every field where it is, every constant what it is. All of it at compile time.
#include <catch2/catch.hpp>
#include <span>

#include "protocols/net_control.h"
#include "protocols/net_packets.h"
#include "ring/shared_ring.h"
#include "tests/abi/xen_ring_headers.h"

namespace caisson::net {
namespace {

#define SAME_FIELD(Ours, our_field, Xens, xens_field)                                            \
    static_assert(offsetof(Ours, our_field) == offsetof(Xens, xens_field) &&                     \
                      sizeof(Ours::our_field) == sizeof(std::declval<struct Xens>().xens_field), \
                  "a field is not where netif.h has it")

static_assert(sizeof(TxRequest) == sizeof(netif_tx_request));
SAME_FIELD(TxRequest, gref, netif_tx_request, gref);
SAME_FIELD(TxRequest, offset, netif_tx_request, offset);
SAME_FIELD(TxRequest, flags, netif_tx_request, flags);
SAME_FIELD(TxRequest, id, netif_tx_request, id);
SAME_FIELD(TxRequest, size, netif_tx_request, size);

static_assert(sizeof(TxResponse) == sizeof(netif_tx_response));
SAME_FIELD(TxResponse, id, netif_tx_response, id);
SAME_FIELD(TxResponse, status, netif_tx_response, status);

static_assert(sizeof(RxRequest) == sizeof(netif_rx_request));
SAME_FIELD(RxRequest, id, netif_rx_request, id);
SAME_FIELD(RxRequest, pad, netif_rx_request, pad);
SAME_FIELD(RxRequest, gref, netif_rx_request, gref);

static_assert(sizeof(RxResponse) == sizeof(netif_rx_response));
SAME_FIELD(RxResponse, id, netif_rx_response, id);
SAME_FIELD(RxResponse, offset, netif_rx_response, offset);
SAME_FIELD(RxResponse, flags, netif_rx_response, flags);
SAME_FIELD(RxResponse, status, netif_rx_response, status);

static_assert(sizeof(Extra) == sizeof(netif_extra_info) && sizeof(Extra::data) == sizeof(netif_extra_info::u));
SAME_FIELD(Extra, type, netif_extra_info, type);
SAME_FIELD(Extra, flags, netif_extra_info, flags);
SAME_FIELD(Extra, data, netif_extra_info, u);

static_assert(sizeof(ControlRequest) == sizeof(xen_netif_ctrl_request));
SAME_FIELD(ControlRequest, id, xen_netif_ctrl_request, id);
SAME_FIELD(ControlRequest, type, xen_netif_ctrl_request, type);
SAME_FIELD(ControlRequest, data, xen_netif_ctrl_request, data);

static_assert(sizeof(ControlResponse) == sizeof(xen_netif_ctrl_response));
SAME_FIELD(ControlResponse, id, xen_netif_ctrl_response, id);
SAME_FIELD(ControlResponse, type, xen_netif_ctrl_response, type);
SAME_FIELD(ControlResponse, status, xen_netif_ctrl_response, status);
SAME_FIELD(ControlResponse, data, xen_netif_ctrl_response, data);

static_assert(ring_slots == __CONST_RING_SIZE(netif_tx, 4096) && ring_slots == __CONST_RING_SIZE(netif_rx, 4096));
static_assert(caisson::ring_slots<ControlRing>(page_size) == __CONST_RING_SIZE(xen_netif_ctrl, 4096));
static_assert(slots_min == XEN_NETIF_NR_SLOTS_MIN && max_packet == XEN_NETIF_MAX_TX_SIZE);

// netif.h defines the tx flags with the bit numbers of _NETTXF_*.
static_assert(tx_flag::csum_blank == 1u << _NETTXF_csum_blank &&
              tx_flag::data_validated == 1u << _NETTXF_data_validated &&
              tx_flag::more_data == 1u << _NETTXF_more_data && tx_flag::extra_info == 1u << _NETTXF_extra_info);
static_assert(rx_flag::data_validated == NETRXF_data_validated && rx_flag::csum_blank == NETRXF_csum_blank &&
              rx_flag::more_data == NETRXF_more_data && rx_flag::extra_info == NETRXF_extra_info &&
              rx_flag::gso_prefix == NETRXF_gso_prefix);
static_assert(status::okay == NETIF_RSP_OKAY && status::error == NETIF_RSP_ERROR &&
              status::dropped == NETIF_RSP_DROPPED && status::null == NETIF_RSP_NULL);
static_assert(extra_type::gso == XEN_NETIF_EXTRA_TYPE_GSO && extra_type::mcast_add == XEN_NETIF_EXTRA_TYPE_MCAST_ADD &&
              extra_type::mcast_del == XEN_NETIF_EXTRA_TYPE_MCAST_DEL &&
              extra_type::hash == XEN_NETIF_EXTRA_TYPE_HASH && extra_flag_more == XEN_NETIF_EXTRA_FLAG_MORE);
static_assert(static_cast<int>(GsoType::none) == XEN_NETIF_GSO_TYPE_NONE &&
              static_cast<int>(GsoType::tcpv4) == XEN_NETIF_GSO_TYPE_TCPV4 &&
              static_cast<int>(GsoType::tcpv6) == XEN_NETIF_GSO_TYPE_TCPV6);

constexpr bool is(ControlType ours, int xens) { return static_cast<int>(ours) == xens; }
static_assert(is(ControlType::get_hash_flags, XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS) &&
              is(ControlType::set_hash_flags, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS) &&
              is(ControlType::set_hash_key, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY) &&
              is(ControlType::get_hash_mapping_size, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE) &&
              is(ControlType::set_hash_mapping_size, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE) &&
              is(ControlType::set_hash_mapping, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING) &&
              is(ControlType::set_hash_algorithm, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM) &&
              is(ControlType::get_gref_mapping_size, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE) &&
              is(ControlType::add_gref_mapping, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING) &&
              is(ControlType::del_gref_mapping, XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING));
static_assert(control_status::success == XEN_NETIF_CTRL_STATUS_SUCCESS &&
              control_status::not_supported == XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED &&
              control_status::invalid_parameter == XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER &&
              control_status::buffer_overflow == XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW);
static_assert(hash_type::ipv4 == XEN_NETIF_CTRL_HASH_TYPE_IPV4 &&
              hash_type::ipv4_tcp == XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP &&
              hash_type::ipv6 == XEN_NETIF_CTRL_HASH_TYPE_IPV6 &&
              hash_type::ipv6_tcp == XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP);
static_assert(hash_algorithm::none == XEN_NETIF_CTRL_HASH_ALGORITHM_NONE &&
              hash_algorithm::toeplitz == XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ);

}  // namespace

TEST_CASE("extra information of ours reads as netif.h's union") {
    auto as_xens = [](const Extra& ours) {
        netif_extra_info xens{};
        std::memcpy(&xens, &ours, sizeof xens);
        return xens;
    };
    const netif_extra_info gso = as_xens(gso_extra({.type = GsoType::tcpv6, .size = 1448}, true));
    CHECK(gso.type == XEN_NETIF_EXTRA_TYPE_GSO);
    CHECK(gso.flags == XEN_NETIF_EXTRA_FLAG_MORE);
    CHECK(gso.u.gso.size == 1448);
    CHECK(gso.u.gso.type == XEN_NETIF_GSO_TYPE_TCPV6);
    CHECK(gso.u.gso.features == 0);
}

TEST_CASE("netif.h's union reads as extra information of ours") {
    auto parsed = [](const netif_extra_info& xens) {
        Extra ours{};
        std::memcpy(&ours, &xens, sizeof ours);
        Extras into;
        REQUIRE(parse_extra(ours, into).has_value());
        return into;
    };
    netif_extra_info mcast{.type = XEN_NETIF_EXTRA_TYPE_MCAST_ADD, .flags = 0, .u = {}};
    const std::uint8_t group[6] = {1, 0, 0x5E, 1, 2, 3};
    std::memcpy(mcast.u.mcast.addr, group, sizeof group);
    CHECK(parsed(mcast).mcast_add == Mac{{1, 0, 0x5E, 1, 2, 3}});

    netif_extra_info hash{.type = XEN_NETIF_EXTRA_TYPE_HASH, .flags = 0, .u = {}};
    hash.u.hash.type = 3;
    hash.u.hash.algorithm = XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ;
    const std::uint8_t value[4] = {0x78, 0x56, 0x34, 0x12};
    std::memcpy(hash.u.hash.value, value, sizeof value);
    CHECK(parsed(hash).hash.value == 0x12345678);
    CHECK(parsed(hash).hash.type == 3);
}

}  // namespace caisson::net
