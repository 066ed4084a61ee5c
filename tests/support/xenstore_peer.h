// A client of Xenstored without a socket, for tests: speaks the wire byte by byte and keeps what it is told.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "domains/hypervisor/xenstore_server.h"

namespace caisson::hypervisor::testing {

using namespace std::literals;

inline std::string bytes_of(StoreHeader header, std::string_view payload) {
    std::string bytes(sizeof header, '\0');
    std::memcpy(bytes.data(), &header, sizeof header);
    return bytes += payload;
}

// "a", "b" as the wire has them: "a\0b\0".
template <class... Text>
std::string strings(const Text&... text) {
    std::string all;
    ((all += text, all += '\0'), ...);
    return all;
}

struct Answer {
    StoreOp type{};
    std::uint32_t request = 0, transaction = 0;
    std::string payload;

    bool ok() const { return type != StoreOp::error; }
    std::string error() const { return ok() ? "" : payload.c_str(); }
    std::string text() const { return payload.c_str(); }
    std::vector<std::string> list() const {
        std::vector<std::string> list;
        for (std::size_t at = 0; at < payload.size(); at += list.back().size() + 1) list.emplace_back(&payload[at]);
        return list;
    }
};

class StorePeer {
  public:
    StorePeer(Xenstored& store, DomainId domain)
        : store_(&store), connection_(store.connect(domain, [this] { ++wakes; }).value()) {}
    StorePeer(Xenstored& store, std::uint16_t domain) : StorePeer(store, DomainId(domain)) {}
    StorePeer(const StorePeer&) = delete;
    ~StorePeer() { close(); }

    StoreConnection& connection() { return *connection_; }
    bool broken() const { return connection_->broken(); }
    void close() {
        if (connection_) store_->disconnect(std::exchange(connection_, nullptr));
    }

    // Hands over bytes and reads nothing. False when not all were taken.
    bool push(std::string_view bytes) {
        return connection_->feed(std::as_bytes(std::span(bytes)), now) == bytes.size();
    }
    bool push(StoreOp op, std::string_view payload, std::uint32_t transaction = 0) {
        return push(bytes_of(
            {static_cast<std::uint32_t>(op), ++request_, transaction, static_cast<std::uint32_t>(payload.size())},
            payload));
    }
    // Reads everything; events go to `events`, replies to `replies`.
    void pull() {
        for (auto out = connection_->output(); !out.empty(); out = connection_->output()) {
            received_.append(reinterpret_cast<const char*>(out.data()), out.size());
            connection_->drained(out.size(), now);
        }
        StoreHeader header;
        while (received_.size() >= sizeof header) {
            std::memcpy(&header, received_.data(), sizeof header);
            if (received_.size() < sizeof header + header.length) break;
            Answer answer{static_cast<StoreOp>(header.type), header.request, header.transaction,
                          received_.substr(sizeof header, header.length)};
            received_.erase(0, sizeof header + header.length);
            if (answer.type == StoreOp::watch_event)
                events.emplace_back(answer.list().at(0), answer.list().at(1));
            else
                replies.push_back(std::move(answer));
        }
    }
    // One request in a turn of its own.
    Answer call(StoreOp op, std::string_view payload, std::uint32_t transaction = 0) {
        replies.clear();
        store_->tick(now);
        if (!push(op, payload, transaction)) return {StoreOp::error, 0, 0, "not taken"};
        pull();
        if (replies.empty()) return {StoreOp::error, 0, 0, "no reply"};
        return replies.back();
    }

    Answer read(std::string_view path, std::uint32_t tx = 0) { return call(StoreOp::read, strings(path), tx); }
    Answer write(std::string_view path, std::string_view value, std::uint32_t tx = 0) {
        return call(StoreOp::write, strings(path) += value, tx);
    }
    Answer mkdir(std::string_view path, std::uint32_t tx = 0) { return call(StoreOp::mkdir, strings(path), tx); }
    Answer rm(std::string_view path, std::uint32_t tx = 0) { return call(StoreOp::rm, strings(path), tx); }
    Answer directory(std::string_view path, std::uint32_t tx = 0) {
        return call(StoreOp::directory, strings(path), tx);
    }
    Answer get_perms(std::string_view path, std::uint32_t tx = 0) {
        return call(StoreOp::get_perms, strings(path), tx);
    }
    template <class... Text>
    Answer set_perms(std::string_view path, const Text&... permission) {
        return call(StoreOp::set_perms, strings(path, permission...));
    }
    Answer watch(std::string_view path, std::string_view token) { return call(StoreOp::watch, strings(path, token)); }
    Answer unwatch(std::string_view path, std::string_view token) {
        return call(StoreOp::unwatch, strings(path, token));
    }
    std::uint32_t start() {
        const Answer answer = call(StoreOp::transaction_start, "\0"sv);
        return answer.ok() ? static_cast<std::uint32_t>(std::stoul(answer.text())) : 0;
    }
    Answer end(std::uint32_t transaction, bool commit = true) {
        return call(StoreOp::transaction_end, commit ? "T\0"sv : "F\0"sv, transaction);
    }
    std::vector<std::pair<std::string, std::string>> take_events() {
        pull();
        return std::exchange(events, {});
    }

    std::vector<std::pair<std::string, std::string>> events;
    std::deque<Answer> replies;
    StoreTime now{0};
    std::size_t wakes = 0;

  private:
    Xenstored* store_;
    StoreConnection* connection_;
    std::uint32_t request_ = 0;
    std::string received_;
};

using Events = std::vector<std::pair<std::string, std::string>>;

// What the toolstack makes for a domain before it starts: its home, which it owns.
inline void make_home(Xenstored& store, std::uint16_t domain, std::uint32_t generation = 1) {
    (void)store.create(DomainId(domain), generation);
    const std::string home = domain_path(DomainId(domain)), n = "n" + std::to_string(domain);
    (void)store.write(home, "");
    (void)store.set_permissions(home, {n});
    (void)store.introduce(DomainId(domain), generation);
}

}  // namespace caisson::hypervisor::testing
