#include "domains/hypervisor/broker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <csignal>

namespace caisson::hypervisor {

namespace {

constexpr int events_per_turn = 64;
constexpr int accepts_per_turn = 16;
// Unread answers keep descriptors in flight, of which the kernel allows a user only so many: a client may have a few
// answers unread, not hundreds.
void limit_unread(const Fd& socket) {
    static constexpr int bytes = 16 * 1024;
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

// The kernel counts descriptors that wait in sockets per user, and as a user without root all domains are that user:
// any of them can have used the room up. ENOMEM is the kernel's own.
bool no_room_for_descriptors(int err) { return err == ETOOMANYREFS || err == ENOMEM; }

StoreTime now() { return std::chrono::duration_cast<StoreTime>(std::chrono::steady_clock::now().time_since_epoch()); }

}  // namespace

Broker::Broker(const Options& options, OwnDescriptors descriptors)
    : uid_(::geteuid()),
      limits_(options.limits),
      hypercalls_(std::move(descriptors), limits_),
      store_(options.store),
      store_sockets_(store_, [this](int fd, bool readable, bool writable) { store_interest(fd, readable, writable); }) {
}

Broker::~Broker() = default;

Result<std::unique_ptr<Broker>> Broker::make(Options options) {
    std::signal(SIGPIPE, SIG_IGN);  // a write to a pipe whose reader died is an error value, not a signal
    auto broker = std::unique_ptr<Broker>(new Broker(options, TRY(OwnDescriptors::open())));
    TRY(broker->prepare(options));
    return broker;
}

Status Broker::prepare(Options& options) {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    Fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll_ || !stop) return host_fault(errno, "epoll");
    stop_ = TRY(stop.duplicate());
    spare_ = TRY(stop.duplicate());
    const DomainKey dom0 = *hypercalls_.current(control_domain);
    TRY(add(Kind::stop, std::move(stop), dom0));
    TRY(add(Kind::listener, std::move(options.hypervisor), dom0));
    store_.tick(now());
    TRY(store_.write("/local/domain/0/domid", "0"));  // as xen-init-dom0 does
    TRY(store_.write("/local/domain/0/name", "Domain-0"));
    return store_sockets_.listen(std::move(options.xenstored), control_domain);
}

// ---- The loop ------------------------------------------------------------------------------------------------------

Status Broker::run() {
    std::array<epoll_event, events_per_turn> events;
    while (true) {
        const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), patience());
        if (count < 0 && errno != EINTR) return host_fault(errno, "epoll_wait");
        for (int i = 0; i < count; ++i) {
            const int fd = static_cast<int>(events[i].data.u64 & 0xFFFFFFFF);
            const auto source = sources_.find(fd);
            if (source == sources_.end() || source->second.serial != events[i].data.u64 >> 32) continue;
            if (source->second.kind == Kind::stop) return {};
            on_ready(fd, events[i].events);
        }
        store_.tick(now());
        spent_.clear();
    }
}

void Broker::stop() {
    const std::uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
}

int Broker::patience() const {
    const auto next = store_.next_tick();
    if (!next) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - now()).count();
    return static_cast<int>(std::clamp<decltype(left)>(left, 0, 60'000));
}

void Broker::on_ready(int fd, std::uint32_t events) {
    const Source& source = sources_.at(fd);
    switch (source.kind) {
        case Kind::stop: return;
        case Kind::listener: return accept_some(fd, source.domain);
        case Kind::connection: return serve(fd, source.connection);
        case Kind::process: return release(source.domain);
        case Kind::store:
            if ((events & EPOLLOUT) != 0) store_sockets_.on_writable(fd, now());
            if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) store_sockets_.on_readable(fd, now());
            return;
    }
}

Status Broker::add(Kind kind, Fd fd, DomainKey domain, ConnectionId connection) {
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (flags < 0 || (kind != Kind::process && ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0))
        return host_fault(errno, "watch a descriptor");
    const int number = fd.get();
    epoll_event event{.events = EPOLLIN, .data = {}};
    event.data.u64 = std::uint64_t{next_serial_} << 32 | static_cast<std::uint32_t>(number);
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, number, &event) != 0) return host_fault(errno, "watch a descriptor");
    sources_[number] = {
        .kind = kind, .serial = next_serial_++, .domain = domain, .connection = connection, .fd = std::move(fd)};
    return {};
}

void Broker::forget(int fd) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    sources_.erase(fd);
}

void Broker::forget(DomainKey domain, Kind kind) {
    std::erase_if(sources_, [&](const auto& entry) {
        const bool gone = entry.second.kind == kind && entry.second.domain == domain;
        if (gone) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry.first, nullptr);
        return gone;
    });
}

void Broker::store_interest(int fd, bool readable, bool writable) {
    if (!readable && !writable) return forget(fd);
    auto [source, fresh] = sources_.try_emplace(fd);
    if (fresh) {
        source->second.kind = Kind::store;
        source->second.serial = next_serial_++;
    }
    epoll_event event{.events = (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U), .data = {}};
    event.data.u64 = std::uint64_t{source->second.serial} << 32 | static_cast<std::uint32_t>(fd);
    ::epoll_ctl(epoll_.get(), fresh ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
}

// ---- Connections ---------------------------------------------------------------------------------------------------

void Broker::accept_some(int listener, DomainKey domain) {
    for (int i = 0; i < accepts_per_turn; ++i) {
        Fd socket(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket) {
            if (errno == EMFILE || errno == ENFILE) refuse_one(listener);
            return;
        }
        ucred peer{};
        socklen_t size = sizeof peer;
        if (domain.id == control_domain &&
            (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != uid_))
            continue;  // Dom0 is the user who runs the broker (XSA-468)
        limit_unread(socket);
        const auto id = hypercalls_.connect(domain);
        if (!id) continue;  // over its quota: closed
        if (!add(Kind::connection, std::move(socket), domain, *id)) hypercalls_.disconnect(*id);
    }
}

// Out of descriptors: a connection that stays in the backlog would wake the loop for ever.
void Broker::refuse_one(int listener) {
    spare_.reset();
    Fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)).reset();
    if (auto spare = stop_.duplicate()) spare_ = std::move(*spare);
}

// A domain has one share of each turn, however many connections it makes: what is left stays in their sockets, which
// stay ready.
void Broker::serve(int fd, ConnectionId connection) {
    StoreTime& spent = spent_[sources_.at(fd).domain];
    StoreTime since = now();
    for (std::uint32_t i = 0; i < limits_.messages_per_turn && spent < limits_.time_per_turn; ++i) {
        switch (local::receive(fd, message_)) {
            case local::Received::nothing_yet: return;
            case local::Received::end: return drop(fd, connection);
            case local::Received::message: break;
        }
        if (message_.truncated) return drop(fd, connection);
        Answer reply = hypercalls_.handle(connection, message_.data(), std::move(message_.descriptors));
        message_.descriptors.clear();
        if (!answer(fd, std::move(reply))) return drop(fd, connection);
        const StoreTime done = now();
        spent += done - since;
        since = done;
    }
}

// False: the client cannot be answered, and what it asked for goes with its connection. Where only its descriptors
// cannot be sent, it is no fault of the client: it may ask again.
bool Broker::answer(int fd, Answer answer) {
    if (answer.bytes.empty()) return false;
    int restricted = -1;
    if (answer.created) {
        const DomainKey key = answer.created->key;
        if (const Status made = created(*answer.created); !made) {
            release(key);
            answer = Hypercalls::failed(answer, made.error());
        }
    }
    if (answer.destroyed) destroy(*answer.destroyed);
    if (answer.restricted) {
        const ConnectionId id = answer.restricted->id;
        limit_unread(answer.restricted->socket);
        restricted = answer.restricted->socket.get();
        const Status added = add(Kind::connection, std::move(answer.restricted->socket), sources_.at(fd).domain, id);
        if (!added) {
            hypercalls_.disconnect(id);
            answer = Hypercalls::failed(answer, added.error());
        }
    }
    std::vector<int> descriptors;
    for (const Fd& descriptor : answer.descriptors) descriptors.push_back(descriptor.get());
    const int err = local::send(fd, answer.bytes, descriptors);
    if (!no_room_for_descriptors(err)) return err == 0;
    if (restricted >= 0) forget(restricted);
    if (answer.undo) answer.undo();
    const Answer again =
        Hypercalls::failed(answer, host_fault(EAGAIN, "too many descriptors are on their way").error());
    return local::send(fd, again.bytes) == 0;
}

void Broker::drop(int fd, ConnectionId connection) {
    forget(fd);
    hypercalls_.disconnect(connection);
}

// ---- Domains -------------------------------------------------------------------------------------------------------

Status Broker::created(NewDomain& domain) {
    const DomainKey key = domain.key;
    const std::string number = std::to_string(key.id.raw), home = "/local/domain/" + number;
    TRY(store_.create(key.id, key.generation));
    TRY(store_.write(home + "/domid", number));
    TRY(store_.set_permissions(home, {"n0", "r" + number}));
    TRY(store_.set_permissions(home + "/domid", {"n0", "r" + number}));
    TRY(store_sockets_.listen(std::move(domain.xenstored), key.id));
    TRY(add(Kind::listener, std::move(domain.hypervisor), key));
    if (!domain.process) return {};
    const int process = domain.process.get();
    TRY(add(Kind::process, std::move(domain.process), key));
    processes_[key] = process;
    return {};
}

// Its processes are killed; it stays until they are really gone, for until then they use what they mapped.
void Broker::destroy(DomainKey domain) {
    const auto process = processes_.find(domain);
    if (process == processes_.end()) return release(domain);
    hypercalls_.dying(domain);
    forget(domain, Kind::listener);
    (void)::syscall(SYS_pidfd_send_signal, process->second, SIGKILL, nullptr, 0);
}

void Broker::release(DomainKey domain) {
    processes_.erase(domain);
    for (const Kind kind : {Kind::listener, Kind::connection, Kind::process}) forget(domain, kind);
    hypercalls_.release(domain);
    store_.domain_died(domain.id);
    store_sockets_.close_domain(domain.id);
}

}  // namespace caisson::hypervisor
