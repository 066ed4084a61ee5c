#include "backends/console/worker.h"

namespace caisson::console {

namespace {

constexpr ByteRingLayout out_ring{
    .data = out_offset, .size = out_bytes, .consumer = out_consumer, .producer = out_producer};
constexpr ByteRingLayout in_ring{.data = in_offset, .size = in_bytes, .consumer = in_consumer, .producer = in_producer};

constexpr unsigned pieces_a_turn = 4;       // what one device may cost the others before it is their turn
constexpr unsigned pieces_at_the_end = 64;  // a dead guest's ring holds two; a living one does not stop us for ever
constexpr std::size_t most_shown_at_once = 1024;  // what a killed worker may lose on its way to the reader

constexpr short watched_now_and_then = -1;
constexpr auto now_and_then = std::chrono::milliseconds(100);

std::uint32_t index_in(SharedSpan page, std::size_t offset) {
    std::uint32_t index = 0;
    page.copy_out(offset, std::as_writable_bytes(std::span(&index, 1)));
    return index;
}

void say_connection(SharedSpan page, std::uint8_t state) {
    page.copy_in(connection_offset, std::as_bytes(std::span(&state, 1)));
}

// A successor goes on from its journal. Anybody else meets the ring live, at what the page says: zeros when it is new,
// and any value is as good when a frontend keeps its page across backends.
Result<Journal> open_journal(WorkerContext& context, const BackendPlan& plan, SharedSpan page) {
    if (context.successor && !Journal::blank(context.journal)) return Journal::resume(context.journal, plan.limit);
    return Journal::start(context.journal, plan.limit,
                          {.consumed = index_in(page, out_consumer), .queue_end = 0, .log = plan.log_begin},
                          index_in(page, in_producer));
}

}  // namespace

Result<std::unique_ptr<DeviceWorker>> BackendWorker::serve(WorkerContext context, HandoverReader& handover) {
    const auto plan = TRY(handover.value<BackendPlan>());
    Parts parts;
    parts.channel = TRY(handover.channel());
    if (plan.host != HostKind::none) parts.host = HostPort(plan.host, TRY(handover.fd()));
    if (plan.log) {
        Fd first = TRY(handover.fd()), second = TRY(handover.fd());
        parts.log = LogWriter(std::move(first), std::move(second),
                              {.limit = plan.log_limit, .rate = plan.log_rate, .timestamps = plan.log_timestamps});
    }
    parts.pages = TRY(context.hypervisor.map(context.address.peer(), std::span(&plan.ring_ref, 1), Access::read_write));
    parts.journal = TRY(open_journal(context, plan, parts.pages.memory()));
    return std::unique_ptr<DeviceWorker>(new BackendWorker(std::move(context), std::move(parts)));
}

BackendWorker::BackendWorker(WorkerContext context, Parts parts)
    : context_(std::move(context)),
      pages_(std::move(parts.pages)),
      channel_(std::move(parts.channel)),
      host_(std::move(parts.host)),
      log_(std::move(parts.log)),
      journal_(parts.journal),
      consumed_(journal_.progress().consumed),
      out_(pages_.memory(), out_ring, consumed_),
      in_(pages_.memory(), in_ring, journal_.produced()) {
    if (log_) log_.cut(journal_.progress().log);
    // What the journal says is done, although the ring may not say it yet; and one notification, in case one was lost.
    out_.publish();
    in_.publish();
    say_connection(pages_.memory(), connected);
    tell_peer();
    if (host_.listener() >= 0)
        listener_watch_ = context_.loop.watch(host_.listener(), POLLIN, [this](short) {
            if (host_.accept()) watch_host();
        });
    watch_host();
    served_ = context_.loop.serve(*this, {&channel_});
}

// The guest may be dead: its pages are mapped as long as we are here, and they are emptied before we go.
BackendWorker::~BackendWorker() {
    served_.reset();
    host_watch_.reset();
    listener_watch_.reset();
    for (unsigned piece = 0; !broken_ && piece < pieces_at_the_end; ++piece) {
        const auto more = take_output();
        if (!more || !*more) break;
    }
    reader_full_ = false;
    while (show_output()) {
    }
    if (log_) log_.finish(journal_);
    if (!broken_) say_connection(pages_.memory(), disconnected);
}

bool BackendWorker::poll() {
    if (broken_) return false;
    bool progress = false;
    for (unsigned piece = 0; piece < pieces_a_turn; ++piece) {
        const auto taken = take_output();
        if (!taken) return fail(taken.error()), true;
        if (!*taken) break;
        progress = true;
    }
    for (unsigned piece = 0; piece < pieces_a_turn && show_output(); ++piece) progress = true;
    const auto room = in_.room();
    if (!room) return fail(room.error()), true;
    progress |= std::exchange(room_seen_, *room) < *room;  // the guest has read: that is what it woke us for
    watch_host();
    return progress;
}

bool BackendWorker::arm() {
    if (broken_) return false;
    const auto waiting = out_.available();
    if (!waiting) return fail(waiting.error()), true;
    return *waiting > 0;
}

Result<bool> BackendWorker::take_output() {
    std::array<std::byte, LogWriter::most_bytes> piece;
    const std::size_t count = TRY(out_.peek(piece));
    if (count == 0) return false;
    const std::span<const std::byte> bytes(piece.data(), count);
    QueueStats& stats = context_.stats.queue[0];

    Progress next = journal_.progress();
    if (log_ && log_.record(journal_, next, bytes, LogWriter::Clock::now()))
        context_.publish(log_turn_key, std::to_string(journal_.progress().log.turn));
    if (host_.kind() != HostKind::none) stats.dropped.add(journal_.push(next, bytes));
    next.consumed += static_cast<std::uint32_t>(count);
    journal_.commit(next);
    out_.take(count);
    out_.publish();
    tell_peer();

    stats.requests.add(1);
    stats.bytes_in.add(count);
    stats.errors.add(log_.failures() - std::exchange(failures_seen_, log_.failures()));
    return true;
}

bool BackendWorker::show_output() {
    if (reader_full_ || !host_.attached()) return false;
    const auto bytes = journal_.take(most_shown_at_once);
    if (bytes.empty()) return false;
    const std::size_t written = host_.write(bytes);
    journal_.put_back(bytes.size() - written);
    reader_full_ = written < bytes.size();
    return written > 0;
}

Result<bool> BackendWorker::take_input() {
    std::array<std::byte, in_bytes> bytes;
    const std::size_t room = TRY(in_.room());
    const std::size_t count = host_.read(std::span(bytes).first(room));
    if (count == 0) return false;
    TRY(in_.write(std::span(bytes).first(count)));
    tell_peer();
    context_.stats.queue[0].responses.add(1);
    context_.stats.queue[0].bytes_out.add(count);
    return true;
}

// A descriptor that is ready for what we cannot use now would keep the loop awake: watch only for what we can. Called
// after everything that may have hung up a client, so that a watch never outlives its descriptor.
void BackendWorker::watch_host() {
    short wanted = 0;
    if (host_.attached()) {
        room_seen_ = in_.room().value_or(0);
        wanted = POLLHUP;
        if (room_seen_ > 0) wanted |= POLLIN;
        if (reader_full_) wanted |= POLLOUT;
    }
    // io_uring always reports a line whose other half is closed: such a one is looked at now and then.
    if (host_.input_ended()) wanted = watched_now_and_then;
    if (wanted == watched_) return;
    watched_ = wanted;
    host_watch_.reset();
    if (wanted == watched_now_and_then)
        host_watch_ = context_.loop.every(now_and_then, [this] { host_ready(host_.look()); });
    else if (wanted != 0)
        host_watch_ = context_.loop.watch(host_.line(), wanted, [this](short events) { host_ready(events); });
}

void BackendWorker::host_ready(short events) {
    if ((events & POLLOUT) != 0) reader_full_ = false;
    if ((events & POLLIN) != 0) {
        const auto taken = take_input();
        if (!taken) return fail(taken.error());
    }
    if (host_.kind() == HostKind::socket && (events & (POLLHUP | POLLERR)) != 0) host_.hang_up();
    if (!host_.attached()) reader_full_ = false;
    watch_host();
}

void BackendWorker::tell_peer() {
    channel_.notify();
    context_.stats.queue[0].notifies_sent.add(1);
}

// From here on the page is not looked at any more.
void BackendWorker::fail(const Error& error) {
    if (std::exchange(broken_, true)) return;
    served_.reset();
    host_watch_.reset();
    listener_watch_.reset();
    context_.stats.broken.add(1);
    context_.broken(error);
}

}  // namespace caisson::console
