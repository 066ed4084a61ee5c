#include "frontends/block/nbd_server.h"

#include <algorithm>

namespace caisson::block::frontend {

namespace {

constexpr unsigned most_calls = 64;                              // for one message, in one turn
constexpr std::size_t room = Inbox::bytes - nbd::request_bytes;  // for data

// The protocol has few of Linux' numbers.
std::uint32_t told(int error) {
    switch (error) {
        case 0:
        case EPERM:
        case ENOMEM:
        case EINVAL:
        case ENOSPC:
        case EOPNOTSUPP: return static_cast<std::uint32_t>(error);
        case EROFS: return EPERM;
        default: return EIO;
    }
}

bool carries_data(const Entry& entry) {
    return entry.operation == static_cast<std::uint8_t>(Operation::read) && entry.error == 0;
}
std::uint64_t bytes_of_reply(const Entry& entry) { return nbd::reply_bytes + (carries_data(entry) ? entry.length : 0); }

}  // namespace

// ---- Coming --------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<AttachmentServer>> NbdServer::open(Fd fd, Inbox& inbox, DataPath& path) {
    std::unique_ptr<NbdServer> server(new NbdServer(std::move(fd), inbox, path));
    fetch_pages(inbox);
    TRY(server->take_over());
    return server;
}

Status NbdServer::take_over() {
    if (inbox_.in.total() > bytes_of_message()) return host_fault(EBADMSG, "journal: bytes of a message");
    found_ = complete();
    if (inbox_.replying == 0) return {};
    if (inbox_.replying > most_tags) return host_fault(EBADMSG, "journal: a reply to no request");
    const Tag tag(inbox_.replying - 1);
    const Entry& entry = path_.requests()[tag];
    if (said(tag)) return {};
    if ((entry.state != Entry::answering && entry.state != Entry::expired) || entry.told != 0 ||
        inbox_.out.total() > bytes_of_reply(entry))
        return host_fault(EBADMSG, "journal: a reply to no request");
    return {};
}

std::optional<nbd::Request> NbdServer::request() const {
    return nbd::parse_request(std::span(inbox_.message).first<nbd::request_bytes>());
}

// ---- Requests ------------------------------------------------------------------------------------------------------

std::uint64_t NbdServer::bytes_of_message() const {
    const auto one = inbox_.in.total() < nbd::request_bytes ? std::nullopt : request();
    return nbd::request_bytes + (one && one->command == nbd::command::write ? one->length : 0);
}

AttachmentServer::Served NbdServer::serve(unsigned budget) {
    Served served;
    reply();
    while (!gone_ && served.messages < budget && fetch()) {
        const nbd::Request one = *request();
        if (std::exchange(found_, false) && path_.requests().has_cookie(one.cookie)) {
            inbox_.in.restart();  // it came so far
            continue;
        }
        served.full = handle(one) == Done::no_room;
        if (served.full) break;
        inbox_.in.restart();
        ++served.messages;
    }
    served.gone = gone_;
    return served;
}

// True: a whole message is in the inbox. One that is longer than the inbox is written over itself: it will be refused.
bool NbdServer::fetch() {
    for (unsigned calls = 0; calls < most_calls; ++calls) {
        const std::uint64_t have = inbox_.in.total(), all = bytes_of_message();
        if (have >= nbd::request_bytes && !request()) return end_conversation(), false;
        if (have == all) return true;
        const std::size_t at =
            have < nbd::request_bytes ? have : nbd::request_bytes + (have - nbd::request_bytes) % room;
        const std::size_t bytes = std::min<std::uint64_t>(all - have, inbox_.message.size() - at);
        const int got = inbox_.in.receive(fd_.get(), std::span(inbox_.message).subspan(at, bytes));
        if (got > 0 || got == -EINTR) continue;
        if (got != -EAGAIN) end_conversation();
        return false;
    }
    return false;  // others have their turn; the socket says that there is more
}

NbdServer::Done NbdServer::handle(const nbd::Request& one) {
    Requests::Wanted wanted{.offset = one.offset, .length = one.length, .cookie = one.cookie};
    switch (one.command) {
        case nbd::command::read: wanted.operation = Operation::read; break;
        case nbd::command::write: wanted.operation = Operation::write; break;
        case nbd::command::trim: wanted.operation = Operation::discard; break;
        case nbd::command::flush:
            wanted.operation = Operation::flush;
            wanted.offset = wanted.length = 0;
            break;
        case nbd::command::disconnect: return end_conversation(), Done::yes;
        default: return refuse(one, EINVAL);
    }
    if (one.flags != 0) return refuse(one, EINVAL);  // of FUA and its like we have said nothing
    if (const int error = path_.check(wanted.operation, false, wanted.offset, wanted.length); error != 0)
        return refuse(one, error);
    const bool writes = wanted.operation == Operation::write;
    if (writes && wanted.length > room) return refuse(one, EINVAL);
    const iovec data{inbox_.message.data() + nbd::request_bytes, wanted.length};
    const auto tag = path_.submit(wanted, std::span(&data, writes ? 1 : 0));
    return tag ? Done::yes : Done::no_room;
}

// In the table like every other: there each gets its one reply.
NbdServer::Done NbdServer::refuse(const nbd::Request& one, int error) {
    return path_.refuse(one.cookie, error) ? Done::yes : Done::no_room;
}

// Whoever was on the other end wants no answers any more.
void NbdServer::end_conversation() {
    gone_ = true;
    inbox_.replying = 0;
    for (const Tag tag : std::exchange(replies_, {})) path_.told(tag);
}

// ---- Replies -------------------------------------------------------------------------------------------------------

void NbdServer::ended(Tag tag, std::uint64_t, int) {
    if (gone_ || path_.requests()[tag].told != 0) return;
    const bool begun = inbox_.replying == tag.raw + 1;  // perhaps by a predecessor: it goes on before any other
    if (replies_.empty() && (begun || inbox_.replying == 0) && send(tag)) return;
    path_.hold(tag);
    begun ? replies_.push_front(tag) : replies_.push_back(tag);
}

void NbdServer::reply() {
    while (!replies_.empty() && send(replies_.front())) {
        if (gone_) return;
        path_.told(replies_.front());
        replies_.pop_front();
    }
}

// All of it is out: said where a successor finds it, before the entry may be used again.
bool NbdServer::said(Tag tag) {
    const Entry& entry = path_.requests()[tag];
    if (inbox_.out.total() != bytes_of_reply(entry)) return false;
    if (entry.state == Entry::answering || entry.state == Entry::expired) path_.requests().note_told(tag);
    inbox_.replying = 0;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return true;
}

// False: the socket is full.
bool NbdServer::send(Tag tag) {
    const Entry& entry = path_.requests()[tag];
    if (inbox_.replying != tag.raw + 1) {
        inbox_.out.restart();
        inbox_.replying = tag.raw + 1;
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    auto header = nbd::encode(nbd::Reply{.error = told(entry.error), .cookie = entry.cookie});
    while (!said(tag)) {
        std::array<iovec, pages_a_request + 2> parts;
        std::size_t used = 0;
        const std::uint64_t sent = inbox_.out.total(), skip = std::max(sent, nbd::reply_bytes) - nbd::reply_bytes;
        if (sent < nbd::reply_bytes) parts[used++] = {header.data() + sent, nbd::reply_bytes - sent};
        if (carries_data(entry))
            used += path_.for_kernel(tag, skip, entry.length - skip, std::span(parts).subspan(used));
        fetch_pages(std::span(parts).first(used));
        const int went = inbox_.out.send(fd_.get(), std::span(parts).first(used));
        if (went == -EAGAIN) return false;
        if (went <= 0 && went != -EINTR) return end_conversation(), true;
    }
    return true;
}

}  // namespace caisson::block::frontend
