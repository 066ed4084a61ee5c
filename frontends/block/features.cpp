#include "frontends/block/features.h"

#include <algorithm>
#include <bit>

#include "protocols/xenbus.h"

namespace caisson::block::frontend {

namespace {

// A disk of 2^54 sectors has 2^63 bytes: more than any offset of a program can name.
constexpr std::uint64_t most_sectors = (std::uint64_t{1} << 54) - 1;
constexpr std::uint32_t largest_physical_sector = 1 << 20;

Result<std::uint64_t> read_sectors(const Directory& backend) {
    const auto text = TRY(backend.text(key::sectors));
    if (!text) return peer_fault("a disk without the key sectors");
    const auto sectors = parse_decimal<std::uint64_t>(*text);
    if (!sectors) return peer_fault("sectors is no number");
    return *sectors;
}

Result<std::uint32_t> read_size(const Directory& backend, std::string_view key, std::uint32_t absent,
                                std::uint32_t largest, const char* what) {
    const std::uint32_t size = TRY(backend.number(key, absent));
    if (size < wire_sector) return peer_fault(what, size, Wanted::at_least, wire_sector);
    if (size > largest) return peer_fault(what, size, Wanted::at_most, largest);
    if (!std::has_single_bit(size)) return peer_fault(what, size, Wanted::exactly, std::bit_floor(size));
    return size;
}

Status read_discard(const Directory& backend, Geometry& disk) {
    disk.discard = TRY(backend.flag(key::feature_discard));
    if (!disk.discard) return {};
    disk.discard_secure = TRY(backend.flag(key::discard_secure));
    disk.discard_granularity = std::max(TRY(backend.number(key::discard_granularity, 0)), disk.sector_size);
    disk.discard_alignment = TRY(backend.number(key::discard_alignment, 0));
    return {};
}

}  // namespace

Result<Transport> read_transport(const Directory& backend) {
    Transport offer;
    offer.queues = TRY(backend.number(key::max_queues, 1));
    if (offer.queues < 1) return peer_fault("multi-queue-max-queues", 0, Wanted::at_least, 1);
    offer.queues = std::min(offer.queues, max_queues);
    offer.ring_order = std::min(TRY(backend.number(key::max_ring_order, 0)), max_ring_order);
    offer.persistent = TRY(backend.flag(key::feature_persistent));
    return offer;
}

Result<Features> read_features(const Directory& own, const Directory& backend) {
    Features features;
    const auto state = TRY(backend.text("state"));
    features.connected = state && parse_xenbus_state(*state) == XenbusState::connected;
    if (!features.connected) return features;

    Geometry& disk = features.geometry;
    disk.sector_size = TRY(read_size(backend, key::sector_size, wire_sector, page_size, "sector-size"));
    disk.physical_sector_size = TRY(read_size(backend, key::physical_sector_size, disk.sector_size,
                                              largest_physical_sector, "physical-sector-size"));
    if (TRY(own.flag(key::quirk_logical_blocks))) features.unit = disk.sector_size;
    disk.info = TRY(backend.number(key::info, 0));
    const std::uint64_t sectors = TRY(read_sectors(backend)), scale = features.unit / wire_sector;
    if (sectors > most_sectors / scale) return peer_fault("sectors", sectors, Wanted::at_most, most_sectors / scale);
    disk.sectors = sectors * scale / (disk.sector_size / wire_sector) * (disk.sector_size / wire_sector);
    const bool may_be_empty = (disk.info & (disk_info::cdrom | disk_info::removable)) != 0;
    if (disk.sectors == 0 && !may_be_empty) return peer_fault("sectors", sectors, Wanted::at_least, 1);

    disk.flush = TRY(backend.flag(key::feature_flush));
    disk.barrier = TRY(backend.flag(key::feature_barrier));
    TRY(read_discard(backend, disk));
    const std::uint32_t indirect = TRY(backend.number(key::max_indirect_segments, 0));
    features.segments = std::clamp(indirect, direct_segments, max_indirect_segments);
    return features;
}

std::vector<std::string> watched_features() {
    std::vector<std::string> keys{"state"};
    for (const std::string_view name :
         {key::sectors, key::sector_size, key::physical_sector_size, key::info, key::feature_flush,
          key::feature_barrier, key::feature_discard, key::discard_secure, key::max_indirect_segments})
        keys.emplace_back(name);
    return keys;
}

}  // namespace caisson::block::frontend
