// Who a guest may say it is, and which multicast it wants.
//
// The rules look at a private copy of a packet's first bytes. What they cannot see, they refuse (only where addresses
// are enforced): a guest with ip= may send ARP, IPv4 and IPv6, nothing else.
#pragma once

#include <algorithm>
#include <span>

#include "backends/net/config.h"
#include "backends/net/journal.h"
#include "protocols/net_headers.h"

namespace caisson::net::backend {

class SourceFilter {
  public:
    explicit SourceFilter(const Config& config) : mac_(config.mac), has_mac_(config.has_mac), may_(config.addresses) {}

    // Null when the packet may pass, otherwise why not.
    const char* refuses(Bytes head, const Headers& headers) const {
        if (has_mac_ && headers.source != mac_) return "source MAC address";
        if (headers.source.multicast()) return "multicast source MAC address";
        if (!may_.enforced()) return nullptr;
        if (headers.ipv4()) return ipv4(head, headers) ? nullptr : "source IPv4 address";
        if (headers.ipv6()) return ipv6(head, headers) ? nullptr : "source IPv6 address";
        if (headers.ethertype == ethertype::arp && headers.network != 0)
            return arp(head, headers.network) ? nullptr : "ARP sender";
        return "protocol, where addresses are enforced";
    }

  private:
    template <std::size_t N>
    static std::array<std::uint8_t, N> address_at(Bytes head, std::size_t offset) {
        std::array<std::uint8_t, N> address;
        std::memcpy(address.data(), head.data() + offset, N);
        return address;
    }
    bool listed(const std::array<std::uint8_t, 4>& address) const {
        const auto end = may_.v4.begin() + may_.v4_count;
        return std::find(may_.v4.begin(), end, address) != end;
    }
    bool listed(const std::array<std::uint8_t, 16>& address) const {
        const auto end = may_.v6.begin() + may_.v6_count;
        return std::find(may_.v6.begin(), end, address) != end;
    }
    bool ipv4(Bytes head, const Headers& headers) const {
        const auto source = address_at<4>(head, headers.network + 12u);
        if (listed(source)) return true;
        // DHCP starts without an address: client port to server port.
        return source == std::array<std::uint8_t, 4>{} && headers.udp() && big16(head, headers.transport + 2u) == 67;
    }
    bool ipv6(Bytes head, const Headers& headers) const {
        if (may_.v6_count == 0) return false;
        const auto source = address_at<16>(head, headers.network + 8u);
        const bool link_local = source[0] == 0xFE && (source[1] & 0xC0) == 0x80;
        if (source != std::array<std::uint8_t, 16>{} && !link_local && !listed(source)) return false;
        return headers.protocol != ip_protocol::icmpv6 || neighbour(head, headers);
    }
    // A neighbour advertisement speaks for an address: it must be the guest's (as the sender of an ARP reply).
    bool neighbour(Bytes head, const Headers& headers) const {
        if (headers.fragment || !fits<std::size_t>(headers.end, 1, head.size())) return false;
        constexpr unsigned neighbour_advertisement = 136;
        if (std::to_integer<unsigned>(head[headers.end]) != neighbour_advertisement) return true;
        if (!fits<std::size_t>(headers.end, 24, head.size())) return false;
        const auto target = address_at<16>(head, headers.end + 8u);
        return listed(target) || (target[0] == 0xFE && (target[1] & 0xC0) == 0x80);
    }
    bool arp(Bytes head, std::size_t offset) const {
        if (has_mac_ && mac_at(head, offset + 8) != mac_) return false;
        const auto sender = address_at<4>(head, offset + 14);
        return listed(sender) || sender == std::array<std::uint8_t, 4>{};  // 0.0.0.0: a probe, RFC 5227
    }

    Mac mac_;
    bool has_mac_;
    GuestAddresses may_;
};

// The list that the frontend keeps with MCAST_ADD and MCAST_DEL; it lies in the journal.
class MulticastFilter {
  public:
    MulticastFilter(Journal& journal, bool applied) : list_(&journal), applied_(applied) {
        list_->multicast_count = std::min(list_->multicast_count, max_multicast);  // the journal is untrusted
    }
    void apply(bool on) { applied_ = on; }
    bool add(Mac mac) {
        if (!mac.multicast()) return false;
        if (find(mac) != end()) return true;
        if (list_->multicast_count == max_multicast) return false;
        list_->multicast[list_->multicast_count] = mac;
        ++list_->multicast_count;
        return true;
    }
    void remove(Mac mac) {
        const auto at = find(mac);
        if (at == end()) return;
        *at = list_->multicast[list_->multicast_count - 1];
        --list_->multicast_count;
    }
    bool wants(Mac destination) {
        if (!applied_ || !destination.multicast() || destination.broadcast()) return true;
        return find(destination) != end();
    }

  private:
    std::array<Mac, max_multicast>::iterator end() { return list_->multicast.begin() + list_->multicast_count; }
    std::array<Mac, max_multicast>::iterator find(Mac mac) { return std::find(list_->multicast.begin(), end(), mac); }

    Journal* list_;
    bool applied_;
};

}  // namespace caisson::net::backend
