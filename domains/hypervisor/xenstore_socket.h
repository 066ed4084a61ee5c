// Sockets for Xenstored: accepts and serves AF_UNIX stream connections, each for the domain its listener belongs to.
//
// It runs in anyone's poll loop: it asks for interest in a descriptor through a callback and is told of readiness.
//
//     XenstoreSockets sockets(store, [&](int fd, bool readable, bool writable) { ... epoll_ctl or a Loop watch ... });
//     sockets.listen(Fd(listener), DomainId(3));      // libxenstore finds it by XENSTORED_PATH
//     // in the loop: sockets.on_readable(fd, now) / sockets.on_writable(fd, now); store.tick(now) by store.next_tick()
//
// Threads: one, the store's. Descriptors are non-blocking here and owned here.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "domains/hypervisor/xenstore_server.h"
#include "ring/fd.h"

namespace caisson::hypervisor {

class XenstoreSockets {
  public:
    // Both false: take the descriptor out of the poll set; it may be closed right after the call, or be asked for again
    // later. Called from within on_*, listen, adopt, close_domain and every call of the store that makes output; it
    // must call neither of them.
    using Interest = std::function<void(int fd, bool readable, bool writable)>;

    XenstoreSockets(Xenstored& store, Interest interest) : store_(store), interest_(std::move(interest)) {}
    ~XenstoreSockets();
    XenstoreSockets(const XenstoreSockets&) = delete;
    XenstoreSockets& operator=(const XenstoreSockets&) = delete;

    // Whoever can connect to the listener is that domain: keep its path where only the domain reaches it.
    Status listen(Fd listener, DomainId domain);
    // A stream that is connected already (one end of a socketpair).
    Status adopt(Fd stream, DomainId domain);

    // An error or hang-up of the descriptor counts as readable. Unknown descriptors are ignored.
    void on_readable(int fd, StoreTime now);
    void on_writable(int fd, StoreTime now);

    // The domain's listener and connections are closed. After Xenstored::domain_died().
    void close_domain(DomainId domain);

    std::size_t connections() const { return streams_.size(); }

  private:
    struct Stream {
        Fd fd;
        StoreConnection* connection = nullptr;
        bool readable = false, writable = false;  // the interest last asked for ...
        bool registered = false;                  // ... if ever
    };
    struct Listener {
        Fd fd;
        DomainId domain;
    };

    void accept_all(Listener& listener);
    bool receive(Stream& stream, StoreTime now);  // false: the stream is over
    bool send(Stream& stream, StoreTime now);
    void settle(Stream& stream);  // brings the interest in line with what the connection can do
    void close(int fd);

    Xenstored& store_;
    Interest interest_;
    std::map<int, Stream> streams_;
    std::map<int, Listener> listeners_;
};

// A listening socket at `path`, mode 0600, replacing a stale one.
Result<Fd> listen_at(const std::string& path);

}  // namespace caisson::hypervisor
