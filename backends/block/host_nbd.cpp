#include "backends/block/host_nbd.h"

#include <liburing.h>

#include <algorithm>

#include "backends/block/nbd_connections.h"

namespace caisson::block::backend {

using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t token_send = 0, token_receive = 1;
constexpr std::uint32_t largest_request = 1u << 30;  // of a trim; whatever carries data is far smaller
constexpr std::size_t most_parts = 512;              // of one send; the kernel takes 1024
static_assert(max_request_bytes <= largest_request);
constexpr auto shortest_pause = 250ms, longest_pause = 8000ms;  // between two questions for a connection

std::uint16_t command_of(Operation operation) {
    switch (operation) {
        case Operation::read: return nbd::command::read;
        case Operation::write: return nbd::command::write;
        case Operation::discard: return nbd::command::trim;
        case Operation::flush:
        case Operation::barrier: break;
    }
    return nbd::command::flush;
}

// The protocol's numbers are Linux'; any that it does not name is an EIO.
int error_of(std::uint32_t told) {
    constexpr std::uint32_t known[] = {EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, EOPNOTSUPP, ESHUTDOWN};
    return told == 0 || std::ranges::find(known, told) != std::end(known) ? static_cast<int>(told) : EIO;
}

}  // namespace

void allow_nbd_host(WorkerPolicy& policy) {
    for (const std::uint8_t operation : {IORING_OP_SENDMSG, IORING_OP_RECVMSG, IORING_OP_ASYNC_CANCEL})
        policy.operations.push_back(operation);
}

Result<std::unique_ptr<Host>> make_nbd_host(WorkerContext& context, const Config& config, HandoverReader& handover,
                                            Completions& completions) {
    Fd socket = TRY(handover.fd());
    Fd line = TRY(handover.fd());
    const auto ask = [publish = context.publish](const Fd& lost) {
        publish(key::nbd_lost, std::to_string(connection_number(lost)) + "." +
                                   std::to_string(Loop::Clock::now().time_since_epoch().count()));  // a new value
    };
    return std::make_unique<NbdHost>(
        context.loop, std::move(socket), config.geometry, completions, context.log,
        NbdReconnect{.line = std::move(line), .ask = ask, .patience = std::chrono::seconds(config.nbd_patience)});
}

NbdHost::NbdHost(Loop& loop, Fd socket, const Geometry& geometry, Completions& completions, Log& log,
                 NbdReconnect reconnect)
    : loop_(loop),
      socket_(std::move(socket)),
      geometry_(geometry),
      completions_(completions),
      log_(log),
      reconnect_(std::move(reconnect)) {
    if (!reconnect_.line) return;
    // Meant for a predecessor, and older than the one that came with the handover.
    for (auto stale = take_connection(reconnect_.line); stale && *stale;) stale = take_connection(reconnect_.line);
    line_watch_ = loop_.watch(reconnect_.line.get(), POLLIN, [this](short) { take_connections(); });
}

NbdHost::~NbdHost() {
    end_calls();
    loop_.forget(*this);
}

// What the kernel does with the socket, and with our buffers. The connection itself is left for the controller to end,
// who sees by it when the server has done all that came through it (nbd_connections.h).
void NbdHost::end_calls() {
    if (!reconnect_.line) ::shutdown(socket_.get(), SHUT_RDWR);
    loop_.cancel(*this);
}

// ---- Out -----------------------------------------------------------------------------------------------------------

void NbdHost::submit(const Io& io) {
    if (hopeless()) return completions_.done(io.tag, EIO);
    if (free_.empty()) {
        free_.push_back(static_cast<std::uint32_t>(works_.size()));
        works_.push_back(std::make_unique<Work>());
    }
    const std::uint32_t token = free_.back();
    free_.pop_back();
    Work& work = *works_[token];
    work.tag = io.tag;
    work.age = next_age_++;
    work.operation = io.operation;
    work.offset = io.offset;
    work.left = io.operation == Operation::flush || io.operation == Operation::barrier ? 0 : io.length;
    work.parts.clear();
    for (const SharedSpan& span : io.shared) work.parts.push_back(span.for_kernel());
    if (!io.bounced.empty()) work.parts.push_back({io.bounced.data(), io.bounced.size()});
    encode(work, token);
    send();
}

// The next request of a work: all of it, but for a huge trim.
void NbdHost::encode(Work& work, std::uint32_t token) {
    work.stage = Work::Stage::queued;
    work.answered = false;
    work.error = 0;
    ++work.serial;
    work.asked = static_cast<std::uint32_t>(std::min<std::uint64_t>(work.left, largest_request));
    const std::uint16_t command = command_of(work.operation);
    work.request = nbd::encode(nbd::Request{.command = command,
                                            .cookie = std::uint64_t{work.serial} << 32 | token,
                                            .offset = command == nbd::command::flush ? 0 : work.offset,
                                            .length = work.asked});
    queue_.push_back(token);
}

// One call carries as many requests as have gathered while the last one was out.
void NbdHost::send() {
    if (out_.busy || queue_.empty() || broken_) return;
    out_.parts.clear();
    out_.first = 0;
    while (!queue_.empty() && (batch_.empty() || out_.parts.size() < most_parts)) {
        const std::uint32_t token = queue_.front();
        Work& work = *works_[token];
        const bool data = work.operation == Operation::write;
        if (!batch_.empty() && out_.parts.size() + 1 + (data ? work.parts.size() : 0) > most_parts) break;
        queue_.pop_front();
        batch_.push_back(token);
        work.stage = Work::Stage::sending;
        out_.parts.push_back({work.request.data(), work.request.size()});
        if (data) out_.parts.insert(out_.parts.end(), work.parts.begin(), work.parts.end());
    }
    out_.busy = true;
    out_.point();
    io_uring_prep_sendmsg(loop_.prepare(*this, token_send), socket_.get(), &out_.message, MSG_NOSIGNAL);
    receive();
}

void NbdHost::sent(int result) {
    out_.busy = false;
    if (broken_) return let_go();
    if (result <= 0 && result != -EINTR && result != -EAGAIN) return break_off("does not take requests");
    if (!out_.advance(result > 0 ? static_cast<std::size_t>(result) : 0)) {
        out_.busy = true;
        out_.point();
        io_uring_prep_sendmsg(loop_.prepare(*this, token_send), socket_.get(), &out_.message, MSG_NOSIGNAL);
        return;
    }
    for (const std::uint32_t token : std::exchange(batch_, {})) {
        works_[token]->stage = Work::Stage::sent;
        settle(token);
    }
    send();
}

// ---- In ------------------------------------------------------------------------------------------------------------

void NbdHost::receive() {
    if (in_.busy || broken_) return;
    if (in_.first == in_.parts.size()) {
        in_.parts.assign(1, {reply_.data(), reply_.size()});
        in_.first = 0;
    }
    in_.busy = true;
    in_.point();
    io_uring_prep_recvmsg(loop_.prepare(*this, token_receive), socket_.get(), &in_.message, 0);
}

// `busy` all along: what is answered here may bring the next submit(), which must not ask for more yet.
void NbdHost::received(int result) {
    if (broken_) return in_.busy = false, let_go();
    const char* fault = result == 0                                           ? "has closed the connection"
                        : result < 0 && result != -EINTR && result != -EAGAIN ? "cannot be heard any more"
                                                                              : nullptr;
    if (fault == nullptr && in_.advance(result > 0 ? static_cast<std::size_t>(result) : 0))
        if (const Status taken = take_reply(); !taken) fault = taken.error().what;
    // The payload is here when only the next reply's bytes are missing.
    if (fault == nullptr && payload_of_ && in_.first + 1 == in_.parts.size()) settle_payload();
    in_.busy = false;
    if (fault != nullptr) return break_off(fault);
    if (pending() > 0) receive();
}

// The server is not believed: what it answers must be asked, once.
Status NbdHost::take_reply() {
    if (payload_of_) settle_payload();
    const auto reply = nbd::parse_reply(reply_);
    if (!reply) return peer_fault("does not speak simple replies");
    const int error = error_of(reply->error);
    const auto token = static_cast<std::uint32_t>(reply->cookie);
    if (token >= works_.size()) return peer_fault("answers what was never asked");
    Work& work = *works_[token];
    const bool out = work.stage == Work::Stage::sending || work.stage == Work::Stage::sent;
    if (!out || work.answered || work.serial != reply->cookie >> 32) return peer_fault("answers what was never asked");
    note_answer();
    work.error = error;
    if (work.operation == Operation::read && error == 0) {
        payload_of_ = token;
        in_.parts = work.parts;
        in_.parts.push_back({reply_.data(), reply_.size()});
        in_.first = 0;
        return {};
    }
    work.answered = true;
    settle(token);
    return {};
}

void NbdHost::settle_payload() {
    const std::uint32_t token = *std::exchange(payload_of_, std::nullopt);
    works_[token]->answered = true;
    settle(token);
}

// ---- Ends ----------------------------------------------------------------------------------------------------------

void NbdHost::settle(std::uint32_t token) {
    Work& work = *works_[token];
    if (work.stage != Work::Stage::sent || !work.answered) return;
    work.left -= work.asked;
    work.offset += work.asked;
    if (work.error != 0 || work.left == 0) return finish(token, work.error);
    encode(work, token);
    send();
}

void NbdHost::finish(std::uint32_t token, int error) {
    works_[token]->stage = Work::Stage::free;
    free_.push_back(token);
    completions_.done(works_[token]->tag, error);
}

void NbdHost::fail_all() {
    for (std::uint32_t token = 0; token < works_.size(); ++token)
        if (works_[token]->stage != Work::Stage::free) finish(token, EIO);
    queue_.clear();
}

// ---- Another connection --------------------------------------------------------------------------------------------

void NbdHost::break_off(const char* why) {
    broken_ = true;
    if (heard_)
        log_.say(std::string("the disk's NBD server ") + why +
                 (hopeless() ? ": all requests fail until the disk connects again" : ": waiting for it to come back"));
    end_calls();
    if (reconnect_.line) wait_for_connection();
    let_go();
}

// A server that takes connections and answers nothing is asked no more often than one that is not there.
void NbdHost::wait_for_connection() {
    if (!std::exchange(heard_, false)) {
        if (!fresh_) retry_ = loop_.after(pause_, [this] { ask(); });
        return;
    }
    pause_ = shortest_pause;
    patience_ = loop_.after(reconnect_.patience, [this] {
        late_ = true;
        if (!broken_) return;
        log_.say("the disk's NBD server stays away: requests fail until it is back");
        if (!out_.busy && !in_.busy) fail_all();
    });
    if (!fresh_) ask();
}

void NbdHost::note_answer() {
    if (std::exchange(heard_, true)) return;
    late_ = false;
    patience_.reset();
    log_.say("the disk's NBD server is back");
}

// Once the kernel has let go of the buffers.
void NbdHost::let_go() {
    if (out_.busy || in_.busy) return;
    out_ = {}, in_ = {};
    batch_.clear();
    payload_of_.reset();
    hopeless() ? fail_all() : keep_all();
    if (fresh_) resume(std::exchange(fresh_, Fd()));
}

// What was not answered is asked once more, oldest first.
void NbdHost::keep_all() {
    queue_.clear();
    std::vector<std::uint32_t> tokens;
    for (std::uint32_t token = 0; token < works_.size(); ++token)
        if (works_[token]->stage != Work::Stage::free) tokens.push_back(token);
    std::ranges::sort(tokens, {}, [this](std::uint32_t token) { return works_[token]->age; });
    for (const std::uint32_t token : tokens) encode(*works_[token], token);
}

void NbdHost::ask() {
    reconnect_.ask(socket_);
    retry_ = loop_.after(pause_, [this] { ask(); });
    pause_ = std::min<Loop::Clock::duration>(pause_ * 2, longest_pause);
}

// The last one that came counts: the controller ends each before it makes the next.
void NbdHost::take_connections() {
    for (;;) {
        auto taken = take_connection(reconnect_.line);
        if (!taken) return line_watch_.reset();
        if (!*taken) break;
        fresh_ = std::move(**taken);
    }
    if (!fresh_) return;
    if (!broken_) return break_off("has another connection for us");
    if (!out_.busy && !in_.busy) resume(std::exchange(fresh_, Fd()));
}

void NbdHost::resume(Fd socket) {
    socket_ = std::move(socket);
    broken_ = false;
    retry_.reset();
    if (pending() == 0) note_answer();  // there is nothing to hear
    send();
}

void NbdHost::answered(std::uint32_t token, int result) { token == token_send ? sent(result) : received(result); }

bool NbdHost::Transfer::advance(std::size_t bytes) {
    while (first < parts.size() && bytes >= parts[first].iov_len) bytes -= parts[first++].iov_len;
    if (first == parts.size()) return true;
    parts[first].iov_base = static_cast<char*>(parts[first].iov_base) + bytes;
    parts[first].iov_len -= bytes;
    return false;
}

void NbdHost::Transfer::point() {
    message = {};
    message.msg_iov = parts.data() + first;
    message.msg_iovlen = std::min<std::size_t>(parts.size() - first, UIO_MAXIOV);
}

}  // namespace caisson::block::backend
