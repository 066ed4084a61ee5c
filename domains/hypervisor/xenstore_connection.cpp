#include "domains/hypervisor/xenstore_connection.h"

#include <algorithm>
#include <cstring>

#include "domains/hypervisor/xenstore_server.h"

namespace caisson::hypervisor {

namespace {

constexpr std::size_t input_capacity = 2 * store_message_max;

std::string message(StoreOp type, std::uint32_t request, std::uint32_t transaction, std::string_view payload) {
    const StoreHeader header{.type = static_cast<std::uint32_t>(type),
                             .request = request,
                             .transaction = transaction,
                             .length = static_cast<std::uint32_t>(payload.size())};
    std::string bytes(sizeof header, '\0');
    std::memcpy(bytes.data(), &header, sizeof header);
    bytes += payload;
    return bytes;
}

}  // namespace

StoreDomain* StoreConnection::domain() const {
    StoreDomain* domain = store_.domains_.find(who_.id);
    return domain && domain->subject.self == who_ ? domain : nullptr;
}

bool StoreConnection::waiting() const {
    const StoreDomain* of = domain();
    if (!of) return true;
    // Dom0's connections belong to programs that trust each other's domain, not each other's speed: each has its own.
    const std::size_t outstanding = of->limited() ? of->outstanding : replies_;
    const bool had_its_turn = of->limited() && of->work >= store_.quota_.work;
    return had_its_turn || outstanding >= store_.quota_.outstanding || store_.domains_.wait(*of) > StoreTime{0};
}

std::size_t StoreConnection::room() const {
    paused_ = !broken_ && waiting();
    return broken_ || paused_ ? 0 : input_capacity - input_.size();
}

std::size_t StoreConnection::feed(std::span<const std::byte> bytes, StoreTime now) {
    store_.observe(now);
    const std::size_t taken = std::min(bytes.size(), room());
    if (taken == 0) return 0;
    input_.append(reinterpret_cast<const char*>(bytes.data()), taken);
    store_.run(*this);
    return taken;
}

std::span<const std::byte> StoreConnection::output() const {
    if (output_.empty()) return {};
    return std::as_bytes(std::span(output_.front().bytes)).subspan(sent_);
}

void StoreConnection::drained(std::size_t bytes, StoreTime now) {
    store_.observe(now);
    while (bytes > 0 && !output_.empty()) {
        const std::size_t step = std::min(bytes, output_.front().bytes.size() - sent_);
        sent_ += step;
        bytes -= step;
        progress_ = now;
        if (sent_ < output_.front().bytes.size()) break;
        pop();
    }
    StoreDomain* of = domain();
    if (!of || broken_) return;
    if (of->limited())
        store_.run_waiting(*of);
    else
        store_.run(*this);
}

// What a message takes, with its copy in the set of unread events.
std::int64_t StoreConnection::Message::memory() const {
    return static_cast<std::int64_t>(sizeof(Message) + bytes.size() + 2 * (path.size() + token.size()));
}

void StoreConnection::push(Message message) {
    StoreDomain* of = domain();
    if (broken_ || !of) return;
    if (output_.empty()) progress_ = store_.now_;
    of->memory += message.memory();
    if (message.event) {
        unread_events_.emplace(message.path, message.token);
    } else {
        replies_ += 1;
        of->outstanding += 1;
    }
    output_.push_back(std::move(message));
    if (wake_) wake_();
}

void StoreConnection::pop() {
    const Message& message = output_.front();
    if (StoreDomain* of = domain()) {
        of->memory -= message.memory();
        of->outstanding -= message.event ? 0 : 1;
    }
    replies_ -= message.event ? 0 : 1;
    if (message.event) unread_events_.erase({message.path, message.token});
    output_.pop_front();
    sent_ = 0;
}

void StoreConnection::reply(const StoreHeader& request, StoreOp type, std::string_view payload) {
    push({.bytes = message(type, request.request, request.transaction, payload)});
}

void StoreConnection::event(std::string_view path, std::string_view watched, std::string_view token) {
    const StoreDomain* of = domain();
    if (broken_ || !of) return;
    const auto known = [&](std::string_view at) {
        return unread_events_.contains({std::string(at), std::string(token)});
    };
    if (known(path)) return;
    const std::size_t most = of->limited() ? store_.quota_.events : store_.quota_.control_events;
    const bool full = unread_events_.size() >= most || (of->limited() && store_.memory_left(*of) <= 0);
    // No event is ever lost: one that finds no place, or would be too long to send (XSA-324), says "something at or
    // below the watched path", of which there is at most one per watch. That fits always: it came in one WATCH request.
    if (full || path.size() + token.size() + 2 > store_payload_max) {
        path = watched;
        if (known(path)) return;
    }
    std::string payload(path);
    payload += '\0';
    payload += token;
    payload += '\0';
    push({.bytes = message(StoreOp::watch_event, 0, 0, payload),
          .event = true,
          .path = std::string(path),
          .token = std::string(token)});
}

void StoreConnection::discard_output() {
    while (!output_.empty()) pop();
}

}  // namespace caisson::hypervisor
