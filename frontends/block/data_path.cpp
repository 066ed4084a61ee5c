#include "frontends/block/data_path.h"

#include <algorithm>
#include <bit>

namespace caisson::block::frontend {

namespace {

// Of an entry that Requests has made or checked: a number of the enumeration.
Operation operation_of(const Entry& entry) {
    return static_cast<Operation>(entry.operation);  // NOLINT(clang-analyzer-optin.core.EnumCastOutOfRange)
}

}  // namespace

// ---- Coming and going ----------------------------------------------------------------------------------------------

DataPath::DataPath(Parts& parts)
    : requests_(parts.requests),
      journal_(parts.journal),
      arena_(std::move(parts.arena)),
      descriptors_(std::move(parts.descriptors)),
      patience_(parts.patience) {
    ended_.reserve(most_tags);
    telling_.reserve(most_tags);
}

Result<std::unique_ptr<DataPath>> DataPath::open(Parts parts) {
    if (parts.queues.empty() || parts.queues.size() > max_queues) return host_fault(EBADMSG, "queues");
    if (parts.arena.refs().size() != parts.requests.pool().size() ||
        parts.descriptors.refs().size() != descriptor_pages)
        return host_fault(EBADMSG, "arena pages");
    std::unique_ptr<DataPath> path(new DataPath(parts));
    for (std::size_t i = 0; i < parts.queues.size(); ++i)
        path->queues_.push_back(TRY(Queue::open(std::move(parts.queues[i].ring), std::move(parts.queues[i].channel),
                                                parts.journal.queue[i], parts.journal.pieces, parts.stats.queue[i])));
    parts.stats.queues = path->queues();
    TRY(path->attach());
    return path;
}

// What a predecessor on this very connection left; nothing, on a new one.
Status DataPath::attach() {
    const bool first = journal_.segments == 0;
    if (!first) {
        if (!believable()) return host_fault(EBADMSG, "journal: segments");
        features_.segments = journal_.segments;
        features_.unit = journal_.unit;
        TRY(check_outstanding());
        TRY(settle_again());
    }
    // Told perhaps; told once more. Of the silent backend's, the tags come back on a new connection.
    for (const Tag tag : requests_.in_state(Entry::expired)) {
        if (first)
            requests_.finish(tag, ETIMEDOUT);
        else
            ended_.push_back(tag);
    }
    for (const Tag tag : requests_.in_state(Entry::answering)) ended_.push_back(tag);
    return {};
}

// The one response that a predecessor took and did not account for comes first: before its tag can be used again.
Status DataPath::settle_again() {
    for (unsigned queue = 0; queue < queues(); ++queue) {
        if (!queues_[queue].answers_again()) continue;
        std::optional<Tag> complete;  // sort_out() finds it
        const auto taken = TRY(queues_[queue].drain(
            1, [&](const Answer& answer, bool again) { return settle(queue, answer, again, complete); }, [] {}));
        if (taken != 1) return peer_fault("response producer index went back");
    }
    return {};
}

bool DataPath::believable() const {
    return journal_.segments >= direct_segments && journal_.segments <= max_indirect_segments &&
           std::has_single_bit(journal_.unit) && journal_.unit >= wire_sector && journal_.unit <= page_size;
}

// The pieces that count as sent are those that the rings wait for.
Status DataPath::check_outstanding() {
    std::array<std::uint32_t, max_queues> sent{};
    for (std::uint32_t i = 0; i < most_tags; ++i) {
        const Pieces& pieces = journal_.pieces[i];
        const std::uint32_t out = pieces.sent & ~pieces.done;
        const std::uint32_t state = requests_[Tag(i)].state;
        if (out != 0 && state != Entry::taken && state != Entry::expired)
            return host_fault(EBADMSG, "journal: a piece of no request");
        sent[queue_of(Tag(i))] += static_cast<std::uint32_t>(std::popcount(out));
    }
    for (unsigned i = 0; i < queues(); ++i) {
        const std::uint32_t wanted = queues_[i].outstanding();
        // One done and not accounted for: seen in the pieces, for the ring's own index is taken back by each successor.
        if (sent[i] + 1 == wanted)
            queues_[i].expect_again();
        else if (sent[i] != wanted)
            return host_fault(EBADMSG, "journal: pieces on the ring");
    }
    return {};
}

Status DataPath::know(const Features& features) {
    if (!features.connected) return {};
    // A disk may grow or shrink; its sectors stay what they are: what is in flight was cut and counted in them.
    const std::uint32_t sector = features.geometry.sector_size, unit = journal_.unit;
    if (ready_ && sector != features_.geometry.sector_size)
        return peer_fault("sector-size of a connected disk", sector, Wanted::exactly, features_.geometry.sector_size);
    if (journal_.segments != 0 && unit != wire_sector && unit != sector)
        return peer_fault("sector-size of a connected disk", sector, Wanted::exactly, unit);
    features_.geometry = features.geometry;
    if (std::exchange(ready_, true)) return {};
    if (journal_.segments == 0) {
        features_ = features;
        journal_.unit = features.unit;
        std::atomic_signal_fence(std::memory_order_release);
        journal_.segments = features.segments;
        if (!believable()) return host_fault(EBADMSG, "segments");
    }
    sort_out();
    ring_bells();
    return {};
}

// Everything that was taken and is not done: onto the rings, oldest first, or to its end.
void DataPath::sort_out() {
    for (std::uint32_t& owner : journal_.owner) {
        if (owner == 0) continue;
        const PieceId id = PieceId::of(owner - 1);
        const Pieces pieces = id.valid() ? journal_.pieces[id.tag] : Pieces{};
        if (!id.valid() || (pieces.sent & ~pieces.done & id.bit()) == 0) owner = 0;
    }
    for (const Tag tag : requests_.in_state(Entry::taken)) {
        since_[tag.raw] = now_;
        const Entry& entry = requests_[tag];
        const Pieces& pieces = journal_.pieces[tag.raw];
        if (pieces.sent == 0) {
            if (operation_of(entry) == Operation::flush && !features_.geometry.flush && !features_.geometry.barrier)
                end_later(tag, 0);  // nothing keeps writes back
            else if (const int error = check(operation_of(entry), entry.secure != 0, entry.offset, entry.length))
                end_later(tag, error);  // another disk than it was
            else
                waiting_[queue_of(tag)].push(tag);
        } else if (pieces.done == all_pieces(entry)) {
            end_later(tag, entry.error);
        } else if (pieces.sent != all_pieces(entry)) {
            waiting_[queue_of(tag)].push(tag);
        }
    }
    issue_waiting();
}

void DataPath::end_later(Tag tag, int error) {
    requests_.finish(tag, error);
    ended_.push_back(tag);
}

void DataPath::tick() {
    ++now_;
    if (!ready_) return;
    for (const Tag tag : requests_.in_state(Entry::taken)) {
        if (now_ - since_[tag.raw] <= patience_) continue;
        requests_.note_error(tag, ETIMEDOUT);
        requests_.expire(tag);
        ended_.push_back(tag);
    }
}

// ---- Requests ------------------------------------------------------------------------------------------------------

int DataPath::check(Operation operation, bool secure, std::uint64_t offset, std::uint64_t length) const {
    const Geometry& disk = features_.geometry;
    if (operation != Operation::read && operation != Operation::flush && disk.read_only()) return EROFS;
    switch (operation) {
        case Operation::flush: return length == 0 ? 0 : EINVAL;
        case Operation::barrier:
            if (!disk.barrier) return EOPNOTSUPP;
            if (length == 0) return 0;
            if (length > direct_segments * page_size) return EINVAL;
            break;
        case Operation::discard:
            if (!disk.discard || (secure && !disk.discard_secure)) return EOPNOTSUPP;
            break;
        case Operation::read:
        case Operation::write:
            if (length > largest()) return EINVAL;
            break;
    }
    if (length == 0 || (offset | length) & (disk.sector_size - 1)) return EINVAL;
    return fits<std::uint64_t>(offset, length, disk.bytes()) ? 0 : EIO;
}

std::optional<Tag> DataPath::submit(const Requests::Wanted& wanted, std::span<const iovec> source) {
    const auto tag = requests_.prepare(wanted);
    if (!tag) return std::nullopt;
    if (!source.empty()) copy_in(*tag, source);
    journal_.pieces[tag->raw] = {};
    requests_.commit(*tag);
    since_[tag->raw] = now_;
    const bool nothing_kept_back = !features_.geometry.flush && !features_.geometry.barrier;
    if (wanted.operation == Operation::flush && nothing_kept_back) return end_later(*tag, 0), tag;
    Waiting& waiting = waiting_[queue_of(*tag)];
    if (waiting.any() || !issue(*tag)) waiting.push(*tag);
    return tag;
}

bool DataPath::refuse(std::uint64_t cookie, int error) {
    const auto tag = requests_.prepare({.operation = Operation::flush, .cookie = cookie});
    if (!tag) return false;
    journal_.pieces[tag->raw] = {};
    end_later(*tag, error);
    return true;
}

void DataPath::told(Tag tag) {
    held_.reset(tag.raw);
    if (requests_[tag].state == Entry::answering) requests_.release(tag);
}

std::uint32_t DataPath::piece_count(const Entry& entry) const {
    if (entry.pages <= features_.segments) return 1;
    return (entry.pages + features_.segments - 1) / features_.segments;
}

// False: some pieces found no room.
bool DataPath::issue(Tag tag) {
    const std::uint32_t count = piece_count(requests_[tag]);
    for (std::uint32_t piece = static_cast<std::uint32_t>(std::countr_one(journal_.pieces[tag.raw].sent));
         piece < count; ++piece)
        if (!issue_piece(tag, {tag.raw, piece})) return false;
    return true;
}

void DataPath::issue_waiting() {
    for (unsigned queue = 0; queue < queues(); ++queue) {
        Waiting& waiting = waiting_[queue];
        if (!waiting.any()) continue;
        while (waiting.any()) {
            // What expired meanwhile is not sent any more.
            if (requests_[waiting.front()].state == Entry::taken && !issue(waiting.front())) break;
            waiting.pop();
        }
        queues_[queue].ring_bell();
    }
}

bool DataPath::issue_piece(Tag tag, PieceId id) {
    Queue& queue = queues_[queue_of(tag)];
    if (queue.full()) return false;
    const Entry& entry = requests_[tag];
    if (entry.pages > 0) return push_data(tag, id);
    const Transfer transfer{
        .operation = operation_of(entry), .id = id.wire(), .offset = entry.offset, .unit = features_.unit};
    Pieces& pieces = journal_.pieces[tag.raw];
    if (operation_of(entry) == Operation::discard) {
        queue.push(id, pieces, encode_discard(transfer, entry.length, entry.secure != 0));
    } else {
        // A backend of old that has only barriers: an empty one flushes (blkif.h, BLKIF_OP_WRITE_BARRIER).
        Transfer empty = transfer;
        empty.offset = 0;
        if (!features_.geometry.flush) empty.operation = Operation::barrier;
        queue.push(id, pieces, encode(empty, {}));
    }
    queue.stats().requests.add(1);
    return true;
}

bool DataPath::push_data(Tag tag, PieceId id) {
    Queue& queue = queues_[queue_of(tag)];
    const Entry& entry = requests_[tag];
    const std::uint32_t first = id.piece * features_.segments;
    const std::uint32_t count = std::min(entry.pages - first, features_.segments);
    const std::uint64_t skip = std::uint64_t{first} * page_size;
    const auto extent_of = [&](std::uint32_t i) {
        const std::uint64_t at = skip + std::uint64_t{i} * page_size;
        return Extent{arena_.refs()[entry.page[first + i]], 0,
                      static_cast<std::uint16_t>(std::min<std::uint64_t>(entry.length - at, page_size))};
    };
    const Transfer transfer{
        .operation = operation_of(entry), .id = id.wire(), .offset = entry.offset + skip, .unit = features_.unit};
    if (count <= direct_segments) {
        std::array<Extent, direct_segments> extents;
        for (std::uint32_t i = 0; i < count; ++i) extents[i] = extent_of(i);
        queue.push(id, journal_.pieces[tag.raw], encode(transfer, std::span(extents).first(count)));
    } else {
        const auto descriptor = take_descriptor(id);
        if (!descriptor) return false;
        std::array<Segment, max_indirect_segments> segments;
        for (std::uint32_t i = 0; i < count; ++i) segments[i] = segment_of(extent_of(i), features_.unit);
        (void)descriptors_.memory().copy_in(*descriptor * page_size, std::as_bytes(std::span(segments).first(count)));
        const GrantRef ref = descriptors_.refs()[*descriptor];
        queue.push(id, journal_.pieces[tag.raw],
                   encode_indirect(transfer, static_cast<std::uint16_t>(count), {&ref, 1}));
    }
    const std::uint64_t bytes = std::min<std::uint64_t>(entry.length - skip, std::uint64_t{count} * page_size);
    queue.stats().requests.add(1);
    if (transfer.operation != Operation::read) queue.stats().bytes_in.add(bytes);
    return true;
}

std::optional<unsigned> DataPath::take_descriptor(PieceId id) {
    for (unsigned i = 0; i < descriptor_pages; ++i) {
        if (journal_.owner[i] != 0) continue;
        journal_.owner[i] = static_cast<std::uint32_t>(id.wire()) + 1;
        std::atomic_signal_fence(std::memory_order_release);
        return i;
    }
    return std::nullopt;
}

void DataPath::give_back_descriptor(PieceId id) {
    for (std::uint32_t& owner : journal_.owner)
        if (owner == id.wire() + 1) owner = 0;
}

// ---- Answers -------------------------------------------------------------------------------------------------------

// Marks the piece done; `complete` when it was the last one of a request that still waits.
Status DataPath::settle(unsigned queue, const Answer& answer, bool again, std::optional<Tag>& complete) {
    const PieceId id = PieceId::of(answer.id);
    if (!id.valid() || queue_of(Tag(id.tag)) != queue) return peer_fault("answer to a request that never was");
    Pieces& pieces = journal_.pieces[id.tag];
    if ((pieces.sent & id.bit()) == 0) return peer_fault("answer to a request that is not outstanding");
    if ((pieces.done & id.bit()) != 0) {
        if (again) return {};
        return peer_fault("a request answered twice");
    }
    const Tag tag(id.tag);
    const Entry& entry = requests_[tag];
    const bool indirect = features_.segments > direct_segments && entry.pages > direct_segments;
    const bool as_barrier =
        entry.operation == static_cast<std::uint8_t>(Operation::flush) && answer.operation == operation::write_barrier;
    // blkback answers an indirect request with the operation in it; some answer with what the ring said.
    if (answer.operation != wire_operation(operation_of(entry)) && !as_barrier &&
        !(indirect && answer.operation == operation::indirect))
        return peer_fault("answer with another operation", answer.operation, Wanted::exactly,
                          wire_operation(operation_of(entry)));
    if (answer.error != 0) {
        requests_.note_error(tag, answer.error);
        queues_[queue].stats().errors.add(1);
    }
    if (indirect) give_back_descriptor(id);
    std::atomic_signal_fence(std::memory_order_release);
    pieces.done |= id.bit();
    if (entry.state != Entry::taken || pieces.done != all_pieces(entry)) return {};
    if (operation_of(entry) == Operation::read) queues_[queue].stats().bytes_out.add(entry.length);
    complete = tag;
    return {};
}

// ---- Data ----------------------------------------------------------------------------------------------------------

void DataPath::copy_in(Tag tag, std::span<const iovec> from) const {
    const Entry& entry = requests_[tag];
    std::size_t at = 0;
    for (const iovec& part : from) {
        const std::size_t whole = std::min<std::size_t>(part.iov_len, entry.length - at);
        for (std::size_t done = 0; done < whole;) {
            const std::size_t offset = at % page_size, bytes = std::min(whole - done, page_size - offset);
            const auto* base = static_cast<const std::byte*>(part.iov_base) + done;
            (void)page(entry.page[at / page_size]).copy_in(offset, {base, bytes});
            at += bytes, done += bytes;
        }
    }
}

void DataPath::copy_out(Tag tag, std::size_t skip, std::span<const iovec> to) const {
    const Entry& entry = requests_[tag];
    std::size_t at = skip;
    for (const iovec& part : to) {
        const std::size_t whole = std::min<std::size_t>(part.iov_len, entry.length - at);
        for (std::size_t done = 0; done < whole;) {
            const std::size_t offset = at % page_size, bytes = std::min(whole - done, page_size - offset);
            auto* base = static_cast<std::byte*>(part.iov_base) + done;
            (void)page(entry.page[at / page_size]).copy_out(offset, {base, bytes});
            at += bytes, done += bytes;
        }
    }
}

std::size_t DataPath::for_kernel(Tag tag, std::size_t skip, std::size_t length, std::span<iovec> out) const {
    const Entry& entry = requests_[tag];
    std::size_t used = 0;
    for (std::size_t at = skip; length > 0 && used < out.size(); ++used) {
        const std::size_t offset = at % page_size, bytes = std::min(length, page_size - offset);
        out[used] = page(entry.page[at / page_size]).subspan(offset, bytes).for_kernel();
        at += bytes, length -= bytes;
    }
    return used;
}

}  // namespace caisson::block::frontend
