// One client of the store: bytes in, bytes out, and what it has pending.
//
// The owner feeds what it reads and drains what it writes. Back-pressure is in room(): it is zero while the domain has
// its share of unread replies or is in debt for its writes, so a client that does not read is not read from (XSA-326);
// and after its share of work in this turn of the loop, so that one domain's costly requests do not hold up the
// others'. Replies and events leave in the order in which they were made; an event that waits unread already is not
// queued twice (XSA-349), and beyond a bound events of a watch melt into one that names the watch's own path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "domains/hypervisor/xenstore_domains.h"
#include "domains/hypervisor/xenstore_transaction.h"
#include "domains/hypervisor/xenstore_wire.h"

namespace caisson::hypervisor {

class Xenstored;

class StoreConnection {
  public:
    // Made by Xenstored::connect(). `who` is fixed for life: a later domain of the same number is another one.
    StoreConnection(Xenstored& store, std::uint64_t id, DomainKey who, std::function<void()> wake)
        : store_(store), id_(id), who_(who), wake_(std::move(wake)) {}
    StoreConnection(const StoreConnection&) = delete;
    StoreConnection& operator=(const StoreConnection&) = delete;

    DomainKey who() const { return who_; }
    // The client broke the protocol, was too slow for its events, or its domain ended. Close its descriptor.
    bool broken() const { return broken_; }

    // How many bytes feed() takes now: 0 while the client must wait, or when broken.
    std::size_t room() const;
    // Serves complete messages at once. Returns how many bytes it took: at most room(), the rest is still the owner's.
    std::size_t feed(std::span<const std::byte> bytes, StoreTime now);

    // The first unsent bytes (of the oldest message; more may follow). Good until the next call of anything.
    std::span<const std::byte> output() const;
    // The client's side took so many of them.
    void drained(std::size_t bytes, StoreTime now);

    std::size_t queued() const { return output_.size(); }  // messages

  private:
    friend class Xenstored;
    friend class StoreRequest;

    struct Message {
        std::string bytes;
        bool event = false;
        std::string path = {}, token = {};  // of an event, for coalescing
        std::int64_t memory() const;
    };

    StoreDomain* domain() const;  // null when it is no more
    bool waiting() const;         // may not be served now
    void reply(const StoreHeader& request, StoreOp type, std::string_view payload);
    // `watched`: the path as the watch was registered, used when no more distinct events fit.
    void event(std::string_view path, std::string_view watched, std::string_view token);
    void push(Message message);
    void pop();
    void discard_output();

    Xenstored& store_;
    const std::uint64_t id_;
    const DomainKey who_;
    std::function<void()> wake_;
    bool broken_ = false;
    bool serving_ = false;         // a request of this connection is being served
    mutable bool paused_ = false;  // the owner found no room: it is to be woken when there is

    std::string input_;
    std::deque<Message> output_;
    std::size_t sent_ = 0;                                         // of the first message
    std::set<std::pair<std::string, std::string>> unread_events_;  // (path, token) of every queued event
    std::size_t replies_ = 0;                                      // queued replies
    StoreTime progress_{0};                                        // when the client last read something

    std::map<std::uint32_t, std::unique_ptr<StoreTransaction>> transactions_;
    std::uint32_t next_transaction_ = 1;
};

}  // namespace caisson::hypervisor
