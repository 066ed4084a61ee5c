// The network device ("vif"): layout, limits, xenstore keys, and the checks that turn a peer's bytes into packets.
//
// Sources: xen/io/netif.h (Xen 4.17) for everything but the keys marked "not in netif.h", which Linux' xen-netback and
// xen-netfront, or libxl, use. Names are ours; every layout is asserted here, and against netif.h in tests/abi/.
//
//   net.h          the wire: slots, limits, keys
//   net_packets.h  packets out of slots: TxAssembler, RxAssembler, extra information
//   net_headers.h  Ethernet/IP/TCP headers in a private copy; netif's offload flags to a virtio-net header and back
//   net_control.h  the control ring's requests, and the hash (Toeplitz) that they set up
//
// Faults. A packet that is only wrong in itself is *rejected*: its slots are answered with an error and the device goes
// on. A peer that breaks the framing (it is no longer clear where a packet ends, or a grant's page is left) is faulty
// (Fault::peer): the device is BROKEN.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "protocols/words.h"

namespace caisson::net {

inline constexpr std::string_view device_class = "vif";

// ---- Limits --------------------------------------------------------------------------------------------------------

inline constexpr unsigned max_queues = 8;
inline constexpr unsigned ring_slots = 256;           // tx and rx: one page each, always
inline constexpr unsigned slots_min = 18;             // XEN_NETIF_NR_SLOTS_MIN: a backend must take so many fragments
inline constexpr unsigned max_slots = 1 + slots_min;  // a head and 18 fragments: what Linux accepts (XSA-432 counts so)
inline constexpr unsigned fatal_slots = max_slots + 2;  // longer chains are no packets any more (netback: 20 fragments)
inline constexpr unsigned max_extras = 4;               // one of each type is all that makes sense
inline constexpr std::uint32_t max_packet = 0xFFFF;     // XEN_NETIF_MAX_TX_SIZE
inline constexpr std::uint32_t min_packet = 14;         // an Ethernet header
inline constexpr std::uint32_t default_mtu = 1500, min_mtu = 68, max_mtu = 65535 - 18;
inline constexpr unsigned max_multicast = 64;      // filter entries, as XEN_NETBK_MCAST_MAX
inline constexpr unsigned max_hash_key = 40;       // bytes, as XEN_NETBK_MAX_HASH_KEY_SIZE
inline constexpr unsigned max_hash_mapping = 128;  // entries, as XEN_NETBK_MAX_HASH_MAPPING_SIZE

// ---- Addresses -----------------------------------------------------------------------------------------------------

struct Mac {
    std::array<std::uint8_t, 6> bytes{};
    auto operator<=>(const Mac&) const = default;
    constexpr bool multicast() const { return (bytes[0] & 1) != 0; }  // broadcast, too
    constexpr bool broadcast() const { return *this == Mac{{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}}; }
    constexpr bool zero() const { return *this == Mac{}; }
    constexpr std::uint64_t number() const {
        std::uint64_t n = 0;
        for (std::uint8_t byte : bytes) n = n << 8 | byte;
        return n;
    }
};

// "00:16:3e:12:34:56" and nothing else.
constexpr std::optional<Mac> parse_mac(std::string_view text) {
    if (text.size() != 17) return std::nullopt;
    auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    };
    Mac mac;
    for (std::size_t i = 0; i < 6; ++i) {
        const int high = digit(text[3 * i]), low = digit(text[3 * i + 1]);
        if (high < 0 || low < 0 || (i < 5 && text[3 * i + 2] != ':')) return std::nullopt;
        mac.bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
    }
    return mac;
}

// ---- The wire ------------------------------------------------------------------------------------------------------

namespace tx_flag {  // NETTXF_*
inline constexpr std::uint16_t csum_blank = 1 << 0, data_validated = 1 << 1, more_data = 1 << 2, extra_info = 1 << 3;
}
namespace rx_flag {  // NETRXF_*: not in the order of NETTXF_*
inline constexpr std::uint16_t data_validated = 1 << 0, csum_blank = 1 << 1, more_data = 1 << 2, extra_info = 1 << 3,
                               gso_prefix = 1 << 4;
}

struct TxRequest {  // netif_tx_request
    std::uint32_t gref;
    std::uint16_t offset, flags, id, size;  // size: of the whole packet in its first slot, of the fragment in others
};
struct TxResponse {  // netif_tx_response
    std::uint16_t id;
    std::int16_t status;
};
struct RxRequest {  // netif_rx_request
    std::uint16_t id, pad;
    std::uint32_t gref;
};
struct RxResponse {  // netif_rx_response; status: bytes in this slot, or a negative status
    std::uint16_t id, offset, flags;
    std::int16_t status;
};
static_assert(sizeof(TxRequest) == 12 && sizeof(TxResponse) == 4 && sizeof(RxRequest) == 8 && sizeof(RxResponse) == 8);

namespace status {                                                           // NETIF_RSP_*
inline constexpr std::int16_t dropped = -2, error = -1, okay = 0, null = 1;  // null: the answer to an extra slot
}

// netif_extra_info: in place of a tx request or of an rx response.
struct Extra {
    std::uint8_t type, flags;
    std::array<std::uint8_t, 6> data;
};
static_assert(sizeof(Extra) == 8);
namespace extra_type {
inline constexpr std::uint8_t gso = 1, mcast_add = 2, mcast_del = 3, hash = 4;
}
inline constexpr std::uint8_t extra_flag_more = 1;
enum class GsoType : std::uint8_t { none = 0, tcpv4 = 1, tcpv6 = 2 };  // XEN_NETIF_GSO_TYPE_*

struct TxRing {
    using Request = TxRequest;
    using Response = TxResponse;
};
struct RxRing {
    using Request = RxRequest;
    using Response = RxResponse;
};

// ---- Control ring
// ------------------------------------------------------------------------------------------------------

struct ControlRequest {  // xen_netif_ctrl_request
    std::uint16_t id, type;
    std::array<std::uint32_t, 3> data;
};
struct ControlResponse {  // xen_netif_ctrl_response
    std::uint16_t id, type;
    std::uint32_t status, data;
};
static_assert(sizeof(ControlRequest) == 16 && sizeof(ControlResponse) == 12);
struct ControlRing {
    using Request = ControlRequest;
    using Response = ControlResponse;
};

// ---- xenstore
// ----------------------------------------------------------------------------------------------------------

namespace key {
// Backend's directory: features and state it publishes.
inline constexpr std::string_view rx_copy = "feature-rx-copy";  // not in netif.h; Linux insists on it
inline constexpr std::string_view rx_flip = "feature-rx-flip";  // not in netif.h; always 0
inline constexpr std::string_view split_channels = "feature-split-event-channels";
inline constexpr std::string_view max_queues = "multi-queue-max-queues";
inline constexpr std::string_view multicast_control = "feature-multicast-control";
inline constexpr std::string_view dynamic_multicast_control = "feature-dynamic-multicast-control";
inline constexpr std::string_view control_ring = "feature-ctrl-ring";
inline constexpr std::string_view carrier = "carrier";
// Backend's directory: what the toolstack (libxl) wrote there.
inline constexpr std::string_view mac = "mac";    // in both directories, not in netif.h
inline constexpr std::string_view rate = "rate";  // "bytes,microseconds"
inline constexpr std::string_view ip = "ip";      // addresses separated by blanks
inline constexpr std::string_view bridge = "bridge";
inline constexpr std::string_view vifname = "vifname";
inline constexpr std::string_view gateway_device = "netdev";  // xl: gatewaydev=
inline constexpr std::string_view script = "script";
inline constexpr std::string_view hotplug_status = "hotplug-status";
// Frontend's directory.
inline constexpr std::string_view request_rx_copy = "request-rx-copy";  // not in netif.h
inline constexpr std::string_view rx_notify = "feature-rx-notify";
inline constexpr std::string_view request_multicast_control = "request-multicast-control";
inline constexpr std::string_view num_queues = "multi-queue-num-queues";
inline constexpr std::string_view tx_ring_ref = "tx-ring-ref";  // these five flat, or in queue-N/ when N >= 2 queues
inline constexpr std::string_view rx_ring_ref = "rx-ring-ref";
inline constexpr std::string_view event_channel = "event-channel";
inline constexpr std::string_view event_channel_tx = "event-channel-tx";
inline constexpr std::string_view event_channel_rx = "event-channel-rx";
inline constexpr std::string_view control_ring_ref = "ctrl-ring-ref";
inline constexpr std::string_view event_channel_control = "event-channel-ctrl";
inline constexpr std::string_view mtu = "mtu";          // written by the toolstack
inline constexpr std::string_view trusted = "trusted";  // written by the toolstack; absent: we do not trust
}  // namespace key

// What a side can *receive*. Both sides publish the same keys with the same meaning for the other's transmissions.
struct Offloads {
    bool scatter_gather = false, gso_tcpv4 = false, gso_tcpv6 = false, csum_ipv4 = false, csum_ipv6 = false;
    bool operator==(const Offloads&) const = default;
    // The largest packet that may be sent to this side.
    std::uint32_t largest(std::uint32_t mtu) const {
        if (scatter_gather && (gso_tcpv4 || gso_tcpv6)) return max_packet;
        const std::uint32_t frame = mtu + 18;  // Ethernet header and one VLAN tag
        return scatter_gather || frame <= page_size ? frame : static_cast<std::uint32_t>(page_size);
    }
    bool gso(GsoType type) const { return type == GsoType::none || (type == GsoType::tcpv4 ? gso_tcpv4 : gso_tcpv6); }
};

struct OffloadKey {
    std::string_view name;
    bool Offloads::* member;
    bool absent;    // the member's value when the key is not there
    bool inverted;  // "feature-no-...": "1" means false
};
inline constexpr std::array offload_keys{
    OffloadKey{"feature-sg", &Offloads::scatter_gather, false, false},  // not in netif.h
    OffloadKey{"feature-gso-tcpv4", &Offloads::gso_tcpv4, false, false},
    OffloadKey{"feature-gso-tcpv6", &Offloads::gso_tcpv6, false, false},
    OffloadKey{"feature-no-csum-offload", &Offloads::csum_ipv4, true, true},
    OffloadKey{"feature-ipv6-csum-offload", &Offloads::csum_ipv6, false, false},
};
// GSO without scatter-gather, or without the checksum of its family, makes no sense: what is left of an offer.
constexpr Offloads consistent(Offloads offer) {
    offer.gso_tcpv4 = offer.gso_tcpv4 && offer.scatter_gather && offer.csum_ipv4;
    offer.gso_tcpv6 = offer.gso_tcpv6 && offer.scatter_gather && offer.csum_ipv6;
    return offer;
}

}  // namespace caisson::net
