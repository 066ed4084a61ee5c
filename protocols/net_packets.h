// Packets out of slots, for both directions. Fed slot by slot in ring order, so a packet may arrive in several
// batches; nothing here grows with what a peer says. Source: xen/io/netif.h, "Guest transmit" and "Guest receive".
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <optional>

#include "protocols/net.h"

namespace caisson::net {

// ---- Extra information, checked ------------------------------------------------------------------------------------

struct Gso {
    GsoType type = GsoType::none;
    std::uint16_t size = 0;  // payload of a segment: at least 1 when type is not none
};

struct PacketHash {
    std::uint8_t type = 0, algorithm = 0;  // type: a bit number of hash_type; algorithm 0: none present
    std::uint32_t value = 0;
};

struct Extras {
    Gso gso;
    PacketHash hash;
    std::optional<Mac> mcast_add, mcast_del;
    unsigned count = 0;
};

// Adds one more to what is known. True when another extra follows. What is not understood breaks the framing.
inline Result<bool> parse_extra(const Extra& raw, Extras& into) {
    if (++into.count > max_extras) return peer_fault("extra info slots", into.count, Wanted::at_most, max_extras);
    const auto& d = raw.data;
    switch (raw.type) {
        case extra_type::gso: {
            const auto size = static_cast<std::uint16_t>(d[0] | d[1] << 8);
            if (d[2] > 2) return peer_fault("GSO type", d[2], Wanted::at_most, 2);
            if (d[2] != 0 && size == 0) return peer_fault("GSO size", size, Wanted::at_least, 1);
            into.gso = {static_cast<GsoType>(d[2]), d[2] == 0 ? std::uint16_t{0} : size};
            break;
        }
        case extra_type::mcast_add: into.mcast_add = Mac{d}; break;
        case extra_type::mcast_del: into.mcast_del = Mac{d}; break;
        case extra_type::hash:
            into.hash = {d[0], d[1],
                         static_cast<std::uint32_t>(d[2]) | static_cast<std::uint32_t>(d[3]) << 8 |
                             static_cast<std::uint32_t>(d[4]) << 16 | static_cast<std::uint32_t>(d[5]) << 24};
            break;
        default: return peer_fault("extra info type", raw.type, Wanted::at_most, extra_type::hash);
    }
    return (raw.flags & extra_flag_more) != 0;
}

constexpr Extra gso_extra(Gso gso, bool more = false) {
    return {extra_type::gso,
            more ? extra_flag_more : std::uint8_t{0},
            {static_cast<std::uint8_t>(gso.size), static_cast<std::uint8_t>(gso.size >> 8),
             static_cast<std::uint8_t>(gso.type), 0, 0, 0}};
}
constexpr Extra hash_extra(PacketHash hash, bool more = false) {
    return {
        extra_type::hash,
        more ? extra_flag_more : std::uint8_t{0},
        {hash.type, hash.algorithm, static_cast<std::uint8_t>(hash.value), static_cast<std::uint8_t>(hash.value >> 8),
         static_cast<std::uint8_t>(hash.value >> 16), static_cast<std::uint8_t>(hash.value >> 24)}};
}
constexpr Extra mcast_extra(bool add, Mac mac, bool more = false) {
    return {add ? extra_type::mcast_add : extra_type::mcast_del, more ? extra_flag_more : std::uint8_t{0}, mac.bytes};
}
// An extra in a tx slot has four bytes of padding behind it; in an rx slot it fits exactly.
constexpr TxRequest in_tx_slot(const Extra& extra) {
    struct Padded {
        Extra extra;
        std::array<std::uint8_t, 4> pad;
    };
    return std::bit_cast<TxRequest>(Padded{extra, {}});
}
constexpr RxResponse in_rx_slot(const Extra& extra) { return std::bit_cast<RxResponse>(extra); }
constexpr Extra extra_of(const TxRequest& slot) {
    struct Padded {
        Extra extra;
        std::array<std::uint8_t, 4> pad;
    };
    return std::bit_cast<Padded>(slot).extra;
}
constexpr Extra extra_of(const RxResponse& slot) { return std::bit_cast<Extra>(slot); }

// ---- Guest transmit: slots to packets (the backend's side)
// -----------------------------------------------------------

struct TxSlice {
    GrantRef ref{};
    std::uint16_t offset = 0, length = 0;  // offset + length <= page_size, length >= 1
};

struct TxPacket {
    std::array<TxSlice, max_slots> slices{};
    unsigned count = 0;      // slices; 0: no data, only extras (multicast list) or rejected
    std::uint32_t size = 0;  // the sum of the slices: min_packet..max_packet
    bool csum_blank = false, data_validated = false;
    Extras extras;
    const char* rejected = nullptr;  // a literal saying why: answer every slot with status::error, use nothing else

    // For the answers: ring slots used, and which of them were extras (answered with status::null).
    std::uint32_t first_index = 0;
    unsigned slots = 0;
    std::array<std::uint16_t, fatal_slots + max_extras> ids{};
    std::uint32_t extra_mask = 0;  // bit i: slot i was an extra
    bool multicast_only() const { return extras.mcast_add || extras.mcast_del; }
    TxResponse response(unsigned slot, std::int16_t result) const {
        if (extra_mask >> slot & 1) return {0, status::null};
        return {ids[slot], result};
    }
};
static_assert(fatal_slots + max_extras <= 32);

// Takes tx slots in ring order. One for each tx ring; a packet may arrive in several batches.
class TxAssembler {
  public:
    // True when packet() is complete (or completely rejected): its `slots` answers are due. An error: the device is
    // BROKEN.
    Result<bool> take(const TxRequest& slot, std::uint32_t index) {
        if (next_ == Next::head) begin(index);
        if (packet_.slots == packet_.ids.size())
            return peer_fault("slots in a packet", packet_.slots + 1, Wanted::at_most, packet_.ids.size());
        const unsigned position = packet_.slots++;
        if (next_ == Next::extra) {
            packet_.extra_mask |= 1u << position;
            if (!TRY(parse_extra(extra_of(slot), packet_.extras))) next_ = more_ ? Next::fragment : Next::head;
            return next_ == Next::head ? finish() : false;
        }
        packet_.ids[position] = slot.id;
        more_ = (slot.flags & tx_flag::more_data) != 0;
        if (next_ == Next::head) {
            TRY(head(slot));
            if ((slot.flags & tx_flag::extra_info) != 0) return next_ = Next::extra, false;
        } else {
            TRY(fragment(slot));
        }
        next_ = more_ ? Next::fragment : Next::head;
        return more_ ? false : finish();
    }
    const TxPacket& packet() const { return packet_; }
    bool idle() const { return next_ == Next::head; }  // between two packets

  private:
    enum class Next : std::uint8_t { head, extra, fragment };

    void begin(std::uint32_t index) {
        packet_.count = packet_.slots = packet_.extra_mask = 0;
        packet_.extras = {};
        packet_.rejected = nullptr;
        packet_.first_index = index;
        fragments_ = rest_ = 0;
    }
    Status head(const TxRequest& slot) {
        if (slot.offset >= page_size) return peer_fault("tx offset", slot.offset, Wanted::at_most, page_size - 1);
        packet_.size = slot.size;
        packet_.csum_blank = (slot.flags & tx_flag::csum_blank) != 0;
        packet_.data_validated = (slot.flags & tx_flag::data_validated) != 0;
        packet_.slices[0] = {GrantRef(slot.gref), slot.offset, 0};
        packet_.count = 1;
        return {};
    }
    Status fragment(const TxRequest& slot) {
        if (++fragments_ + 1 >= fatal_slots)
            return peer_fault("fragments in a packet", fragments_, Wanted::at_most, slots_min);
        if (!fits<std::uint32_t>(slot.offset, slot.size, page_size))
            return peer_fault("tx fragment beyond its page, offset", slot.offset, Wanted::at_most,
                              page_size - std::min<std::size_t>(slot.size, page_size));
        rest_ += slot.size;  // at most 20 * 4096
        // The one place where a zero-length fragment is defined (XSA-448): its packet is rejected.
        if (slot.size == 0) return reject("a fragment of no bytes");
        if (packet_.count == max_slots) return reject("too many fragments");
        packet_.slices[packet_.count++] = {GrantRef(slot.gref), slot.offset, slot.size};
        return {};
    }
    Status reject(const char* why) {
        if (packet_.rejected == nullptr) packet_.rejected = why;
        return {};
    }
    // The first slot's own length is known only now: the packet's size less all others.
    Result<bool> finish() {
        if (packet_.multicast_only() && packet_.rejected == nullptr) return packet_.count = 0, true;
        if (packet_.size < min_packet) TRY(reject("shorter than an Ethernet header"));
        if (rest_ >= packet_.size && packet_.rejected == nullptr) TRY(reject("fragments larger than their packet"));
        if (packet_.rejected != nullptr) return packet_.count = 0, true;
        const std::uint32_t first = packet_.size - rest_;
        if (!fits<std::uint32_t>(packet_.slices[0].offset, first, page_size))
            return peer_fault("tx head beyond its page, bytes", first, Wanted::at_most,
                              page_size - packet_.slices[0].offset);
        packet_.slices[0].length = static_cast<std::uint16_t>(first);
        return true;
    }

    TxPacket packet_;
    Next next_ = Next::head;
    bool more_ = false;
    unsigned fragments_ = 0;
    std::uint32_t rest_ = 0;  // bytes in fragments
};

// ---- Guest receive: slots to packets (the frontend's side)
// ------------------------------------------------------------

struct RxSlice {
    std::uint32_t index = 0;               // of the response, hence of the request and its buffer
    std::uint16_t offset = 0, length = 0;  // offset + length <= page_size, length >= 1
};

struct RxPacket {
    std::array<RxSlice, max_slots> slices{};
    unsigned count = 0;
    std::uint32_t size = 0;  // min_packet..max_packet
    bool csum_blank = false, data_validated = false;
    Extras extras;
    const char* rejected = nullptr;  // drop it; its buffers are free again all the same
};

// Takes rx responses in ring order. Which buffer a response means is decided by its slot (netif.h: "responses always
// appear in the same ring slot as their corresponding request"); whether its id agrees is the caller's check.
class RxAssembler {
  public:
    Result<bool> take(const RxResponse& slot, std::uint32_t index) {
        if (next_ == Next::head) packet_ = {}, slots_ = 0;
        if (++slots_ > fatal_slots + max_extras)
            return peer_fault("rx slots in a packet", slots_, Wanted::at_most, fatal_slots + max_extras);
        if (next_ == Next::extra) {
            if (!TRY(parse_extra(extra_of(slot), packet_.extras))) next_ = more_ ? Next::fragment : Next::head;
            return next_ == Next::head ? finish() : false;
        }
        const bool first = next_ == Next::head;
        more_ = (slot.flags & rx_flag::more_data) != 0;
        data(slot, index);
        if (first) {
            packet_.csum_blank = (slot.flags & rx_flag::csum_blank) != 0;
            packet_.data_validated = (slot.flags & rx_flag::data_validated) != 0;
            if ((slot.flags & rx_flag::gso_prefix) != 0) reject("GSO prefix, which was not asked for");
            if ((slot.flags & rx_flag::extra_info) != 0) return next_ = Next::extra, false;
        }
        next_ = more_ ? Next::fragment : Next::head;
        return more_ ? false : finish();
    }
    // True when the next response is an extra and so carries no id.
    bool expects_extra() const { return next_ == Next::extra; }
    const RxPacket& packet() const { return packet_; }

  private:
    enum class Next : std::uint8_t { head, extra, fragment };

    void data(const RxResponse& slot, std::uint32_t index) {
        if (slot.status < 0) return reject("the backend reports an error");
        const auto length = static_cast<std::uint16_t>(slot.status);
        if (length == 0) return reject("a slot of no bytes");
        if (!fits<std::uint32_t>(slot.offset, length, page_size)) return reject("a slot beyond its page");
        if (packet_.count == max_slots) return reject("too many slots");
        packet_.slices[packet_.count++] = {index, slot.offset, length};
        packet_.size += length;
    }
    void reject(const char* why) {
        if (packet_.rejected == nullptr) packet_.rejected = why;
    }
    bool finish() {
        if (packet_.count > 0 && packet_.slices[0].length < min_packet)  // XSA-522
            reject("first slot shorter than an Ethernet header");
        if (packet_.size > max_packet) reject("longer than any packet");
        if (packet_.rejected != nullptr) packet_.count = 0;
        return true;
    }

    RxPacket packet_;
    Next next_ = Next::head;
    bool more_ = false;
    unsigned slots_ = 0;
};

// A posted buffer. Nothing in it can be wrong but the reference, which the hypervisor judges.
struct RxBuffer {
    GrantRef ref{};
    std::uint16_t id = 0;
};
inline RxBuffer parse(const RxRequest& raw) { return {GrantRef(raw.gref), raw.id}; }

// A tx answer for the frontend; `null` answers an extra and names nothing.
struct TxAnswer {
    std::uint16_t id = 0;
    enum class What : std::uint8_t { sent, failed, extra } what = What::sent;
};
inline Result<TxAnswer> parse(const TxResponse& raw) {
    switch (raw.status) {
        case status::okay: return TxAnswer{raw.id, TxAnswer::What::sent};
        case status::error:
        case status::dropped: return TxAnswer{raw.id, TxAnswer::What::failed};
        case status::null: return TxAnswer{raw.id, TxAnswer::What::extra};
        default: return peer_fault("tx status", static_cast<std::uint16_t>(raw.status), Wanted::at_most, status::null);
    }
}

}  // namespace caisson::net
