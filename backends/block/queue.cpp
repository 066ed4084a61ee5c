#include "backends/block/queue.h"

#include "backends/block/ring_queue.h"

namespace caisson::block::backend {

using namespace std::chrono_literals;

namespace {
constexpr std::uint32_t most_a_turn = 64;  // requests; then other queues have their turn
constexpr std::uint32_t mapped_a_millisecond = 4 * GrantCache::pages_a_call;  // of a queue: a call is some 50 us
constexpr std::uint32_t measured_batches = 16;  // of so many, one is timed where all are done at once
}  // namespace

Result<std::unique_ptr<Queue>> Queue::make(Disk& disk, unsigned number, HandoverReader& handover, bool successor) {
    return disk.config.abi == Abi::x86_32 ? RingQueue<Narrow>::make(disk, number, handover, successor)
                                          : RingQueue<Native>::make(disk, number, handover, successor);
}

// ---- Taking over ---------------------------------------------------------------------------------------------------

template <class Wire>
Result<std::unique_ptr<Queue>> RingQueue<Wire>::make(Disk& disk, unsigned number, HandoverReader& handover,
                                                     bool successor) {
    const auto refs = TRY(handover.refs());
    EventChannel channel = TRY(handover.channel());
    if (refs.size() != disk.config.ring_pages) return host_fault(EINVAL, "vbd: handover of a ring");
    Transport transport{.pages = TRY(disk.context.hypervisor.map(disk.guest(), refs, Access::read_write)),
                        .channel = std::move(channel),
                        .journal = QueueJournal<Wire>::of(disk.context.journal, disk.config, number)};
    const SharedSpan memory = transport.pages.memory();
    auto& [indices, entries] = transport.journal;
    if (successor) {
        auto ring = TRY(BackRing<Wire>::attach(memory, indices));
        auto in_flight = TRY(InFlight<Wire>::attach(entries, indices));
        return std::unique_ptr<Queue>(
            new RingQueue(disk, number, std::move(transport), std::move(ring), std::move(in_flight)));
    }
    auto ring = BackRing<Wire>::attach_at_live_indices(memory, indices);
    // Without a journal (the controller died, too) nobody knows which of these were answered: answers came in any order
    // and lie over requests. Closing the device is what makes a frontend ask again, on a new ring.
    if (const auto left = TRY(ring.available()); left != 0 && ring.next_response() != 0)
        return host_fault(ESTALE, "a ring with requests in flight, and no journal of them");
    InFlight<Wire> in_flight(entries);
    return std::unique_ptr<Queue>(
        new RingQueue(disk, number, std::move(transport), std::move(ring), std::move(in_flight)));
}

template <class Wire>
RingQueue<Wire>::RingQueue(Disk& disk, unsigned number, Transport transport, BackRing<Wire> ring,
                           InFlight<Wire> in_flight)
    : disk_(disk),
      number_(number),
      pages_(std::move(transport.pages)),
      channel_(std::move(transport.channel)),
      ring_(std::move(ring)),
      in_flight_(std::move(in_flight)),
      grants_(disk.context.hypervisor, disk.guest(),
              disk.config.persistent ? disk.config.max_persistent / disk.config.queues : 0),
      pool_(disk.config.bounce_bytes / disk.config.queues),
      jobs_(in_flight_.size()),
      waiting_(in_flight_.size()),
      segments_(max_indirect_segments),
      extents_(max_indirect_segments),
      spans_(max_indirect_segments),
      copies_(max_indirect_segments) {
    grants_.allow(mapped_a_millisecond);
    // A predecessor's: done again, oldest first, before anything new (writing the same twice is writing it once).
    for (const Tag tag : in_flight_.unanswered()) {
        waiting_.push(tag);
        job(tag).taken = Clock::now();
    }
}

// ---- Turns ---------------------------------------------------------------------------------------------------------

template <class Wire>
Result<bool> RingQueue<Wire>::poll() {
    bool progress = std::exchange(answered_, false);
    const std::uint32_t batch = disk_.host->batch();
    for (std::uint32_t done = 0; done < most_a_turn; done += batch) {
        if (!waiting_.empty()) continue_waiting();
        const std::uint32_t taken = waiting_.empty() ? TRY(take(batch)) : 0;
        progress |= taken != 0 || std::exchange(answered_, false);
        due_ |= ring_.publish();
        if (std::exchange(due_, false)) {
            channel_.notify();
            stats().notifies_sent.add(1);
        }
        disk_.host->flush_batch();
        if (taken < batch) break;
    }
    return progress;
}

template <class Wire>
Result<bool> RingQueue<Wire>::arm() {
    if (!waiting_.empty() || throttled_) return false;  // a completion or a timer comes first
    return ring_.arm();
}

template <class Wire>
Result<std::uint32_t> RingQueue<Wire>::take(std::uint32_t budget) {
    throttled_ = false;
    if (TRY(ring_.available()) == 0) return 0;
    if (disk_.throttle.limited()) {
        budget = disk_.throttle.allowance(budget, Clock::now());
        throttled_ = budget == 0;
        if (throttled_) return 0;
    }
    const bool timed = !disk_.host->immediate() || batches_++ % measured_batches == 0;
    if (timed) now_ = Clock::now();
    const std::uint32_t taken = TRY(in_flight_.drain(
        ring_, budget, [this](Untrusted<Request>&& request, Tag tag) { begin(tag, std::move(request)); }));
    disk_.throttle.took_requests(taken);
    stats().requests.add(taken);
    if (timed && disk_.host->immediate()) stats().latency.record(Clock::now() - now_);
    return taken;
}

template <class Wire>
void RingQueue<Wire>::continue_waiting() {
    while (!waiting_.empty()) {
        const Tag tag = waiting_.front();
        // Parsed again, from the journal: the disk may have another size by now.
        Call call = in_flight_.request(tag).check([&](const Request& wire) { return parse(wire, disk_.limits); });
        if (!start(tag, call)) return;
        waiting_.pop();
    }
}

// ---- Starting ------------------------------------------------------------------------------------------------------

template <class Wire>
void RingQueue<Wire>::begin(Tag tag, Untrusted<Request>&& request) {
    Call call = std::move(request).check([&](const Request& wire) { return parse(wire, disk_.limits); });
    job(tag).taken = now_;
    if (!waiting_.empty() || !start(tag, call)) waiting_.push(tag);
}

// False: not now. Whatever else happens, the request will be answered.
template <class Wire>
bool RingQueue<Wire>::start(Tag tag, Call& call) {
    if (!disk_.ready || barrier_) return false;
    job(tag).ticket = call.ticket;
    if (!call.command) return refuse(tag, call.command.error()), true;
    Command& command = *call.command;
    if (command.operation == Operation::barrier && active_ != 0) return false;
    if (disk_.refuses(command.operation)) return answer(tag, status::error), true;

    std::span<const Extent> extents = command.data();
    if (command.is_indirect()) {
        const auto fetched = fetch_segments(command);
        if (!fetched) return refuse(tag, {status::error, fetched.error()}), true;
        extents = *fetched;
    }
    const bool started = disk_.in_place ? start_in_place(tag, command, extents) : start_kept(tag, command, extents);
    if (started) disk_.throttle.took_bytes(command.operation == Operation::discard ? 0 : command.length);
    return started;
}

namespace {

std::uint8_t steps_of(const Command& command) {
    switch (command.operation) {
        case Operation::flush: return command.length != 0 ? Job::flush_before | Job::transfer : Job::flush_before;
        case Operation::barrier:
            return command.length != 0 ? Job::flush_before | Job::transfer | Job::flush_after : Job::flush_before;
        default: return Job::transfer;
    }
}

void fill(Job& job, const Command& command) {
    job.operation = command.operation;
    job.secure = command.secure;
    job.steps = steps_of(command);
    job.error = 0;
    job.offset = command.offset;
    job.length = command.length;
}

Access access_of(const Job& job) { return job.writes() ? Access::read_only : Access::read_write; }

}  // namespace

// The host is done before this returns, so the views in spans_ are good until the end.
template <class Wire>
bool RingQueue<Wire>::start_in_place(Tag tag, const Command& command, std::span<const Extent> extents) {
    Job& one = job(tag);
    fill(one, command);
    for (std::size_t i = 0; i < extents.size(); ++i) {
        GrantStatus granted = GrantStatus::okay;
        spans_[i] = disk_.context.hypervisor.view({disk_.guest(), extents[i].ref, extents[i].offset, extents[i].length},
                                                  access_of(one), granted);
        if (spans_[i].empty()) return refuse(tag, {status::error, "a grant cannot be reached"}), true;
    }
    one.extents.resize(extents.size());  // how many spans there are
    barrier_ = command.operation == Operation::barrier;
    ++active_;
    advance(tag);
    return true;
}

template <class Wire>
bool RingQueue<Wire>::start_kept(Tag tag, const Command& command, std::span<const Extent> extents) {
    Job& one = job(tag);
    fill(one, command);
    one.extents.assign(extents.begin(), extents.end());
    if (!extents.empty() && !map(one, extents) && !find_memory(one)) return false;
    if (!one.run.empty() && one.writes() && !copy(one, GrantCopy::Direction::from_peer)) {
        release(one);
        return refuse(tag, {status::error, "a grant cannot be copied"}), true;
    }
    barrier_ = command.operation == Operation::barrier;
    ++active_;
    advance(tag);
    return true;
}

// The pages of segments are copied once; from there on only the copy is looked at (XSA-155).
template <class Wire>
std::expected<std::span<const Extent>, const char*> RingQueue<Wire>::fetch_segments(Command& command) {
    const auto to = std::as_writable_bytes(std::span(segments_).first(command.segments));
    if (!read_mapped(std::span(command.indirect).first(command.pages), to) && !read_copied(command, to))
        return std::unexpected("a page of segments cannot be copied");
    const auto parsed = parse_segments(command, std::span(segments_).first(command.segments), disk_.limits, extents_);
    if (!parsed) return std::unexpected(parsed.error().what);
    return std::span<const Extent>(extents_).first(command.segments);
}

// A frontend with persistent grants has one for the pages of segments, too: no call to the hypervisor.
template <class Wire>
bool RingQueue<Wire>::read_mapped(std::span<const GrantRef> pages, std::span<std::byte> to) {
    if (grants_.capacity() == 0) return false;
    refs_.assign(pages.begin(), pages.end());
    segment_places_.clear();
    if (!pin(segment_places_)) return false;
    for (const std::uint32_t place : segment_places_) {
        const std::size_t now = std::min(to.size(), page_size);
        (void)grants_.memory(place).copy_out(0, to.first(now));
        to = to.subspan(now);
        grants_.unpin(place);
    }
    return true;
}

template <class Wire>
bool RingQueue<Wire>::read_copied(const Command& command, std::span<std::byte> to) {
    for (unsigned i = 0; i < command.pages; ++i) {
        const std::size_t now = std::min(to.size(), page_size);
        copies_[i] = {.direction = GrantCopy::Direction::from_peer,
                      .source = {disk_.guest(), command.indirect[i], 0, static_cast<std::uint16_t>(now)},
                      .local = to.data()};
        to = to.subspan(now);
    }
    const std::span parts = std::span(copies_).first(command.pages);
    return disk_.context.hypervisor.copy(parts) &&
           std::ranges::all_of(parts, [](const GrantCopy& one) { return one.status == GrantStatus::okay; });
}

// All pages or none.
template <class Wire>
bool RingQueue<Wire>::map(Job& one, std::span<const Extent> extents) {
    refs_.clear();
    for (const Extent& extent : extents) refs_.push_back(extent.ref);
    return pin(one.places);
}

// What refs_ names. The clock is asked only when something is missing: in a PV domain that can be a call to Xen.
template <class Wire>
bool RingQueue<Wire>::pin(std::vector<std::uint32_t>& places) {
    if (grants_.pin(refs_, places)) return true;
    const auto now = Clock::now();
    if (now - mapping_since_ < 1ms) return false;
    mapping_since_ = now;
    grants_.allow(mapped_a_millisecond);
    return grants_.pin(refs_, places);
}

// Private memory for what map() has refused. Without any, mapping at once is better than waiting for some.
template <class Wire>
bool RingQueue<Wire>::find_memory(Job& one) {
    one.run = pool_.take(one.length);
    if (!one.run.empty()) return true;
    grants_.allow(1);
    return grants_.pin(refs_, one.places);
}

// Between its run of private memory and the frontend's pages. Each element has a status of its own (XSA-361, XSA-365).
template <class Wire>
bool RingQueue<Wire>::copy(Job& one, GrantCopy::Direction direction) {
    std::byte* at = one.run.data();
    for (std::size_t i = 0; i < one.extents.size(); ++i) {
        const Extent& extent = one.extents[i];
        const GrantRange range{disk_.guest(), extent.ref, extent.offset, extent.length};
        copies_[i] = {.direction = direction, .local = at};
        (direction == GrantCopy::Direction::from_peer ? copies_[i].source : copies_[i].target) = range;
        at += extent.length;
    }
    const std::span parts = std::span(copies_).first(one.extents.size());
    if (!disk_.context.hypervisor.copy(parts)) return false;
    for (const GrantCopy& part : parts)
        if (part.status != GrantStatus::okay) return false;
    return true;
}

// ---- With the host -------------------------------------------------------------------------------------------------

// The next step, or the end.
template <class Wire>
void RingQueue<Wire>::advance(Tag tag) {
    const Job& one = job(tag);
    if (one.steps == 0 || one.error != 0) return complete(tag);
    submit(tag, one);  // perhaps done() before it returns
}

template <class Wire>
void RingQueue<Wire>::submit(Tag tag, const Job& one) {
    Io io{.tag = tag_of(number_, tag.raw)};
    if (one.step() != Job::transfer) {
        io.operation = Operation::flush;
        return disk_.host->submit(io);
    }
    io.operation = one.writes() ? Operation::write : one.operation;
    io.secure = one.secure;
    io.offset = one.offset;
    io.length = one.length;
    io.bounced = one.run;
    if (one.run.empty() && one.operation != Operation::discard) {
        for (std::size_t i = 0; i < one.places.size(); ++i)
            spans_[i] = grants_.memory(one.places[i]).subspan(one.extents[i].offset, one.extents[i].length);
        io.shared = std::span(spans_).first(one.extents.size());
    }
    disk_.host->submit(io);
}

template <class Wire>
void RingQueue<Wire>::done(std::uint32_t raw, int error) {
    const Tag tag(raw);
    Job& one = job(tag);
    const std::uint8_t step = one.step();
    one.steps = static_cast<std::uint8_t>(one.steps & ~step);
    if (error != 0 && one.error == 0) one.error = error;
    // Said to the journal before anybody hears of it.
    if (error != 0 && step != Job::transfer) disk_.journal.flush_failed = 1;
    advance(tag);
}

template <class Wire>
void RingQueue<Wire>::complete(Tag tag) {
    Job& one = job(tag);
    if (one.error == 0 && !given_up_ && one.operation == Operation::read && !one.run.empty() &&
        !copy(one, GrantCopy::Direction::to_peer))
        one.error = EFAULT;
    if (one.error == 0 && disk_.refuses(one.operation)) one.error = EIO;
    if (!disk_.in_place) release(one);
    --active_;
    barrier_ = false;  // a barrier is alone
    if (one.error == 0) {
        const bool out = one.operation == Operation::read;
        (out ? stats().bytes_out : stats().bytes_in).add(one.operation == Operation::discard ? 0 : one.length);
    }
    if (!disk_.host->immediate()) stats().latency.record(Clock::now() - one.taken);
    answer(tag, one.error == 0 ? status::okay : one.error == EOPNOTSUPP ? status::not_supported : status::error);
}

template <class Wire>
void RingQueue<Wire>::release(Job& one) {
    for (const std::uint32_t place : one.places) grants_.unpin(place);
    one.places.clear();
    if (!one.run.empty()) pool_.give_back(std::exchange(one.run, {}));
}

// ---- Answering -----------------------------------------------------------------------------------------------------

template <class Wire>
void RingQueue<Wire>::refuse(Tag tag, const Rejected& why) {
    disk_.context.log.peer(Error{.fault = Fault::peer, .err = EINVAL, .what = why.what});
    answer(tag, why.status);
}

template <class Wire>
void RingQueue<Wire>::answer(Tag tag, std::int16_t code) {
    if (given_up_) return;
    in_flight_.answer(ring_, tag, block::answer<Wire>(job(tag).ticket, code));
    if (code != status::okay) stats().errors.add(1);
    stats().responses.add(1);
    answered_ = true;
}

template <class Wire>
void RingQueue<Wire>::give_up() {
    given_up_ = true;
    waiting_.clear();
}

}  // namespace caisson::block::backend
