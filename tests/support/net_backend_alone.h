// A real net backend worker whose guest and whose host are the test: the test writes any bytes into the rings and pages
// and sees what the worker makes of them. Turn by turn in one thread.
//
// The guest's pages come from a GuestMemory: LentMemory (plain memory, fast) or XenMemory (grants of a real local
// hypervisor). The host is a TAP's stand-in, a datagram socket: one datagram is a virtio header and a packet.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include "backends/net/config.h"
#include "backends/net/journal.h"
#include "backends/net/net.h"
#include "protocols/net_packets.h"
#include "tests/support/lending_hypervisor.h"
#include "tests/support/ring_words.h"

namespace caisson::test {

// The frontend's end of a shared ring, without any manners.
template <class P>
class LyingRing : public RingWords<P> {
  public:
    using Request = typename P::Request;
    using Response = typename P::Response;

    explicit LyingRing(SharedSpan page) : RingWords<P>(page) { (void)FrontRing<P>::initialise(page, unused_); }

    void put(std::uint32_t index, const Request& request) { this->put_slot(index, request); }
    // As the next request, visible when shown.
    void add(const Request& request) { put(produced_++, request); }
    void show() { producer(produced_); }
    void producer(std::uint32_t value) { this->put_request_producer(value); }
    using RingWords<P>::response_event;
    void response_event(std::uint32_t value) { this->put_response_event(value); }
    std::uint32_t produced() const { return produced_; }

    Response response(std::uint32_t index) const { return this->template slot<Response>(index); }
    // The next response that was not taken, if there is one.
    std::optional<Response> take() {
        if (taken_ == this->response_producer()) return std::nullopt;
        return response(taken_++);
    }
    std::uint32_t taken() const { return taken_; }
    std::vector<Response> take_all() {
        std::vector<Response> all;
        while (auto one = take()) all.push_back(*one);
        return all;
    }

  private:
    RingIndices unused_;
    std::uint32_t produced_ = 0, taken_ = 0;
};

// Where the guest's pages come from, and the Hypervisor through which the backend reaches them.
class GuestMemory {
  public:
    struct Pages {
        std::vector<std::uint32_t> refs;
        SharedSpan memory;
        SharedSpan page(std::size_t n) const { return memory.subspan(n * page_size, page_size); }
    };
    virtual ~GuestMemory() = default;
    virtual Pages share(std::uint32_t pages, Access access) = 0;
    virtual Hypervisor& backend() = 0;
};

class LentMemory final : public GuestMemory {
  public:
    explicit LentMemory(bool direct_view = true) : hypervisor(direct_view) {}
    Pages share(std::uint32_t pages, Access access) override {
        const auto grant = hypervisor.lend(pages, access);
        Pages out{.refs = {}, .memory = grant.memory};
        for (std::uint32_t i = 0; i < pages; ++i) out.refs.push_back(grant.first + i);
        return out;
    }
    Hypervisor& backend() override { return hypervisor; }
    LendingHypervisor hypervisor;
};

struct BackendOptions {
    unsigned queues = 1;
    net::Offloads offloads{true, true, true, true, true};
    bool control_ring = false, multicast_control = false, rx_notify = true;
    net::Mac mac{{0x00, 0x16, 0x3E, 0, 0, 1}};
    bool enforce_mac = true;
    net::backend::GuestAddresses addresses{};
    net::backend::Rate rate{};
    std::uint32_t mtu = net::default_mtu;
    net::backend::HostKind host = net::backend::HostKind::tap;
    int small_host_buffer = 0;  // bytes; 0: large
    std::uint32_t stall_milliseconds = net::backend::Config{}.stall_milliseconds;
    Loop* loop = nullptr;  // to share with a neighbour; null: one of its own
};

class BackendAlone {
  public:
    struct Queue {
        GuestMemory::Pages tx_page, rx_page;
        LyingRing<net::TxRing> tx;
        LyingRing<net::RxRing> rx;
        LooseChannel channel;
        Fd host, tap;  // the test's end, the worker's end
    };
    struct Frame {
        net::VirtioHeader virtio;
        std::vector<std::byte> bytes;
    };

    explicit BackendAlone(GuestMemory& guest_memory, BackendOptions wanted = {})
        : memory(guest_memory), options(wanted) {
        for (unsigned i = 0; i < options.queues; ++i) {
            auto tx = memory.share(1, Access::read_write), rx = memory.share(1, Access::read_write);
            const SharedSpan tx_span = tx.memory, rx_span = rx.memory;
            int pair[2];
            if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
                throw std::runtime_error("socketpair");
            const int bytes = options.small_host_buffer != 0 ? options.small_host_buffer : 4 << 20;
            for (const int fd : pair) (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
            queues.push_back({std::move(tx), std::move(rx), LyingRing<net::TxRing>(tx_span),
                              LyingRing<net::RxRing>(rx_span), LooseChannel::make(), Fd(pair[0]), Fd(pair[1])});
        }
        if (options.control_ring) {
            control_page = memory.share(1, Access::read_write);
            control.emplace(control_page.memory);
            control_channel = LooseChannel::make();
        }
        journal.resize(sizeof(net::backend::Journal) / sizeof(std::uint64_t) + 1);
        if (options.loop == nullptr) own_loop = take(Loop::make());
        loop = options.loop != nullptr ? options.loop : own_loop.get();
        start();
    }
    ~BackendAlone() { worker.reset(); }

    // A successor when the journal was used before.
    void start(bool successor = false) {
        HandoverReader reader = hand_over();
        auto made = net::backend_half().serve(
            {.loop = *loop,
             .hypervisor = memory.backend(),
             .address = {.device_class = "vif", .role = Role::backend, .frontend = DomainId(2), .backend = DomainId(1)},
             .journal = std::as_writable_bytes(std::span(journal)),
             .successor = successor,
             .stats = stats,
             .log = log,
             .broken = [this](const Error& error) { faults.push_back(error); },
             .publish = [this](
                            std::string_view key,
                            std::string_view value) { published.emplace_back(std::string(key), std::string(value)); },
             .group = group},
            reader);
        if (!made) {
            faults.push_back(made.error());
            return;
        }
        worker = std::move(*made);
    }
    // As a kill would: nothing is given back, the journal and the rings stay as they are.
    void kill() {
        static std::vector<std::unique_ptr<DeviceWorker>>* dead = new std::vector<std::unique_ptr<DeviceWorker>>;
        dead->push_back(std::move(worker));
        dead_loops.push_back(std::move(own_loop));
        own_loop = take(Loop::make());
        loop = own_loop.get();
    }
    net::backend::Journal& the_journal() { return *reinterpret_cast<net::backend::Journal*>(journal.data()); }

    void turns(unsigned count = 3) {
        for (unsigned i = 0; i < count; ++i) (void)loop->turn({});
    }
    bool broken() const { return !faults.empty(); }
    Queue& queue(unsigned n = 0) { return queues[n]; }
    QueueStats& counts(unsigned n = 0) { return stats.queue[n]; }

    // What the host got from the guest.
    std::optional<Frame> host_receives(unsigned n = 0) {
        Frame frame{{}, std::vector<std::byte>(70000)};
        const iovec parts[2] = {{&frame.virtio, sizeof frame.virtio}, {frame.bytes.data(), frame.bytes.size()}};
        const ssize_t got = ::readv(queues[n].host.get(), parts, 2);
        if (got < static_cast<ssize_t>(sizeof frame.virtio)) return std::nullopt;
        frame.bytes.resize(static_cast<std::size_t>(got) - sizeof frame.virtio);
        return frame;
    }
    unsigned host_receives_all(unsigned n = 0) {
        unsigned count = 0;
        while (host_receives(n)) ++count;
        return count;
    }
    bool host_sends(std::span<const std::byte> packet, net::VirtioHeader virtio = {}, unsigned n = 0) {
        const iovec parts[2] = {{&virtio, sizeof virtio}, {const_cast<std::byte*>(packet.data()), packet.size()}};
        return ::writev(queues[n].host.get(), parts, 2) > 0;
    }

    // Posts one page for receiving, under an id of its own.
    void post(std::uint32_t ref, std::uint16_t id, unsigned n = 0) {
        queues[n].rx.add({.id = id, .pad = 0, .gref = ref});
    }

    GuestMemory& memory;
    BackendOptions options;
    std::vector<Queue> queues;
    GuestMemory::Pages control_page;
    std::optional<LyingRing<net::ControlRing>> control;
    LooseChannel control_channel;
    std::vector<std::uint64_t> journal;
    DeviceStats stats;
    Log log{"vif under test"};
    std::shared_ptr<void> group;
    std::vector<Error> faults;
    std::vector<std::pair<std::string, std::string>> published;
    std::unique_ptr<Loop> own_loop;
    Loop* loop = nullptr;
    std::vector<std::unique_ptr<Loop>> dead_loops;
    std::unique_ptr<DeviceWorker> worker;

  private:
    template <class T>
    static T take(Result<T> result) {
        if (!result) throw std::runtime_error(result.error().message());
        return std::move(*result);
    }
    HandoverReader hand_over() {
        Handover handover;
        handover.put(net::backend::Config{.queues = options.queues,
                                          .control_ring = options.control_ring,
                                          .rx_notify = options.rx_notify,
                                          .multicast_control = options.multicast_control,
                                          .has_mac = options.enforce_mac,
                                          .offloads = options.offloads,
                                          .mtu = options.mtu,
                                          .mac = options.mac,
                                          .addresses = options.addresses,
                                          .rate = options.rate,
                                          .host = options.host,
                                          .stall_milliseconds = options.stall_milliseconds});
        for (Queue& queue : queues) {
            handover.put(GrantRef(queue.tx_page.refs[0]));
            handover.put(GrantRef(queue.rx_page.refs[0]));
            (void)handover.put(queue.channel.ours);
        }
        if (options.control_ring) {
            handover.put(GrantRef(control_page.refs[0]));
            (void)handover.put(control_channel.ours);
        }
        if (options.host == net::backend::HostKind::tap)
            for (Queue& queue : queues) (void)handover.put(queue.tap);
        return take(handover.reader());
    }
};

// ---- Packets ----

inline std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (const int value : values) out.push_back(static_cast<std::byte>(value));
    return out;
}

// Ethernet from `source` to `destination`, then a pattern that tells every byte from its neighbours.
inline std::vector<std::byte> ethernet(std::size_t size, net::Mac source, net::Mac destination,
                                       int ethertype = 0x88B5) {
    std::vector<std::byte> out(size);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 7 + (i >> 8));
    const auto put = [&](std::size_t at, int value) {
        if (at < size) out[at] = static_cast<std::byte>(value);
    };
    for (std::size_t i = 0; i < 6; ++i) put(i, destination.bytes[i]), put(6 + i, source.bytes[i]);
    put(12, ethertype >> 8);
    put(13, ethertype);
    return out;
}

}  // namespace caisson::test
