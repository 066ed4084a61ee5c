// The broker: one thread that plays Xen for the domains of this machine. Grants, event channels and domains are
// Hypercalls, the store is Xenstored; this is the loop that carries bytes between them and the domains' sockets.
//
// It never blocks and never opens a file after make(). Who connects through a domain's socket is that domain. A client
// that does not read its answers, or sends what is no message, loses its connection; the domain lives on (XSA-325).
#pragma once

#include <memory>

#include "domains/hypervisor/hypercalls.h"
#include "domains/hypervisor/xenstore_server.h"
#include "domains/hypervisor/xenstore_socket.h"

namespace caisson::hypervisor {

class Broker {
  public:
    struct Options {
        Fd hypervisor;  // Dom0's listening SOCK_SEQPACKET
        Fd xenstored;   // Dom0's listening SOCK_STREAM
        Limits limits{};
        StoreQuota store{};
    };
    // In the process that will run it. Ignores SIGPIPE in this process.
    static Result<std::unique_ptr<Broker>> make(Options options);
    ~Broker();
    Broker(const Broker&) = delete;
    Broker& operator=(const Broker&) = delete;

    // Serves until stop(). The thread that calls it owns everything in here.
    Status run();
    // From any thread or signal handler.
    void stop();

    // Look, but only while nobody runs it.
    const Hypercalls& hypercalls() const { return hypercalls_; }
    const Xenstored& store() const { return store_; }

  private:
    enum class Kind : std::uint8_t { stop, listener, connection, process, store };
    struct Source {
        Kind kind{};
        std::uint32_t serial = 0;  // tells a stale event from one for the descriptor's next life
        DomainKey domain;
        ConnectionId connection;
        Fd fd;  // empty: owned elsewhere (store)
    };

    Broker(const Options& options, OwnDescriptors descriptors);
    Status prepare(Options& options);
    Status add(Kind kind, Fd fd, DomainKey domain, ConnectionId connection = {});
    void forget(int fd);
    void forget(DomainKey domain, Kind kind);
    void store_interest(int fd, bool readable, bool writable);
    int patience() const;  // milliseconds until the store wants its tick; -1: for ever

    void on_ready(int fd, std::uint32_t events);
    void accept_some(int listener, DomainKey domain);
    void refuse_one(int listener);
    void serve(int fd, ConnectionId connection);
    bool answer(int fd, Answer answer);
    void drop(int fd, ConnectionId connection);

    Status created(NewDomain& domain);
    void destroy(DomainKey domain);
    void release(DomainKey domain);

    Fd epoll_, stop_, spare_;
    uid_t uid_;
    Limits limits_;
    Hypercalls hypercalls_;
    std::map<int, Source> sources_;  // before the sockets of the store: they say goodbye to it
    std::map<DomainKey, int> processes_;
    std::map<DomainKey, StoreTime> spent_;  // in this turn of the loop
    Xenstored store_;
    XenstoreSockets store_sockets_;
    std::uint32_t next_serial_ = 1;
    local::Message message_;
};

}  // namespace caisson::hypervisor
