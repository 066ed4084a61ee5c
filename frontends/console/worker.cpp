#include "frontends/console/worker.h"

#include <unistd.h>

namespace caisson::console {

namespace {

constexpr unsigned pieces_a_turn = 4;
constexpr std::size_t piece = 1024;
constexpr timespec patience{.tv_sec = 0, .tv_nsec = 250'000'000};  // for one answer of the backend at the end
constexpr unsigned longest_farewell = 50;                          // answers; a backend that takes nothing gets one

FrontPort open_port(WorkerContext& context, SharedSpan page, const EventChannel& channel) {
    auto& journal = *reinterpret_cast<FrontJournal*>(context.journal.data());
    if (context.successor && journal.magic == FrontJournal::version)
        return FrontPort::attach(page, channel, journal.indices);
    FrontPort port = FrontPort::create(page, channel, journal.indices);
    journal.magic = FrontJournal::version;
    return port;
}

}  // namespace

Result<std::unique_ptr<DeviceWorker>> FrontendWorker::serve(WorkerContext context, HandoverReader& handover) {
    SharedPages pages = TRY(handover.pages(context.hypervisor));
    EventChannel channel = TRY(handover.channel());
    Fd pty = TRY(handover.fd());
    if (context.journal.size() < sizeof(FrontJournal)) return host_fault(EINVAL, "console journal's size");
    return std::unique_ptr<DeviceWorker>(
        new FrontendWorker(std::move(context), std::move(pages), std::move(channel), std::move(pty)));
}

FrontendWorker::FrontendWorker(WorkerContext context, SharedPages pages, EventChannel channel, Fd pty)
    : context_(std::move(context)),
      pages_(std::move(pages)),
      channel_(std::move(channel)),
      pty_(std::move(pty)),
      port_(open_port(context_, pages_.memory(), channel_)) {
    watch_pty();
    served_ = context_.loop.serve(*this, {&channel_});
}

FrontendWorker::~FrontendWorker() {
    served_.reset();
    pty_watch_.reset();
    if (!broken_) last_words();
}

// What programs wrote before they exited is still in the pty, and a ring takes half of it: as long as the backend goes
// on taking, it gets the rest.
void FrontendWorker::last_words() {
    for (unsigned answers = 0; answers < longest_farewell; ++answers) {
        for (auto count = print(); count && *count > 0; count = print()) {
        }
        const auto room = port_.room();
        if (!room || *room > 0) return;  // the pty is empty, or the backend broke the rules
        pollfd wait{.fd = channel_.wait_fd(), .events = POLLIN, .revents = 0};
        if (::ppoll(&wait, 1, &patience, nullptr) <= 0 || !channel_.clear()) return;
        channel_.unmask();
    }
}

bool FrontendWorker::poll() {
    if (broken_) return false;
    bool progress = false;
    for (unsigned i = 0; i < pieces_a_turn && !pty_full_; ++i) {
        const auto typed = type();
        if (!typed) return fail(typed.error()), true;
        if (*typed == 0) break;
        progress = true;
    }
    const auto room = port_.room();
    if (!room) return fail(room.error()), true;
    progress |= std::exchange(room_seen_, *room) < *room;
    watch_pty();
    return progress;
}

bool FrontendWorker::arm() {
    if (broken_ || pty_full_) return false;
    const auto waiting = port_.available();
    if (!waiting) return fail(waiting.error()), true;
    return *waiting > 0;
}

Result<std::size_t> FrontendWorker::print() {
    std::array<std::byte, piece> bytes;
    const std::size_t room = std::min(TRY(port_.room()), bytes.size());
    if (room == 0) return 0;
    const ssize_t count = ::read(pty_.get(), bytes.data(), room);
    if (count <= 0) return 0;
    QueueStats& stats = context_.stats.queue[0];
    stats.requests.add(1);
    stats.bytes_in.add(static_cast<std::uint64_t>(count));
    stats.notifies_sent.add(1);
    return port_.write(std::span(bytes).first(static_cast<std::size_t>(count)));
}

Result<std::size_t> FrontendWorker::type() {
    std::array<std::byte, piece> bytes;
    std::size_t offered = 0;
    const std::size_t taken = TRY(port_.read_into(bytes, [&](std::span<const std::byte> typed) -> std::size_t {
        offered = typed.size();
        const ssize_t count = ::write(pty_.get(), typed.data(), typed.size());
        return count < 0 ? 0 : static_cast<std::size_t>(count);
    }));
    pty_full_ = taken < offered;
    if (taken > 0) {
        context_.stats.queue[0].responses.add(1);
        context_.stats.queue[0].bytes_out.add(taken);
        context_.stats.queue[0].notifies_sent.add(1);
    }
    return taken;
}

// Only for what can be used now, or the loop would never sleep.
void FrontendWorker::watch_pty() {
    room_seen_ = port_.room().value_or(0);
    const short wanted = static_cast<short>((room_seen_ > 0 ? POLLIN : 0) | (pty_full_ ? POLLOUT : 0));
    if (wanted == watched_) return;
    watched_ = wanted;
    pty_watch_.reset();
    if (wanted != 0) pty_watch_ = context_.loop.watch(pty_.get(), wanted, [this](short events) { pty_ready(events); });
}

void FrontendWorker::pty_ready(short events) {
    if ((events & POLLOUT) != 0) pty_full_ = false;
    if ((events & POLLIN) != 0)
        if (const auto printed = print(); !printed) return fail(printed.error());
    watch_pty();
}

// From here on the page is not looked at any more. What programs print waits in the pty for the next connection.
void FrontendWorker::fail(const Error& error) {
    if (std::exchange(broken_, true)) return;
    served_.reset();
    pty_watch_.reset();
    context_.stats.broken.add(1);
    context_.broken(error);
}

}  // namespace caisson::console
