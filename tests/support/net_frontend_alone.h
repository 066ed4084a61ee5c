// A real net frontend worker whose backend is the test: it writes any bytes into the rings and sees what the worker
// makes of them. One queue or several, on a PrivateHypervisor and a socket attachment, turn by turn in one thread.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <vector>

#include "frontends/net/attachment_socket.h"
#include "frontends/net/journal.h"
#include "frontends/net/link.h"
#include "frontends/net/net.h"
#include "protocols/net_packets.h"
#include "tests/support/loose_channel.h"
#include "tests/support/private_hypervisor.h"
#include "tests/support/raw_ring.h"

namespace caisson::test {

class FrontendAlone {
  public:
    using Tx = RawRing<net::TxRing>;
    using Rx = RawRing<net::RxRing>;
    using Control = RawRing<net::ControlRing>;

    struct Queue {
        SharedPages tx_pages, rx_pages;
        LooseChannel channel;
        Tx tx;
        Rx rx;
    };

    explicit FrontendAlone(net::frontend::Link wanted = default_link()) : link(wanted) {
        attachment = take(net::frontend::open_sockets(ends, link.queues));
        for (unsigned i = 0; i < link.queues; ++i) {
            SharedPages tx = ring_page<net::TxRing>(), rx = ring_page<net::RxRing>();
            const SharedSpan tx_memory = tx.memory(), rx_memory = rx.memory();
            queues.push_back({std::move(tx), std::move(rx), LooseChannel::make(), Tx(tx_memory), Rx(rx_memory)});
        }
        if (link.receive_hash) {
            control_pages = ring_page<net::ControlRing>();
            control.emplace(control_pages.memory());
            control_channel = LooseChannel::make();
        }
        journal.resize(sizeof(net::frontend::Journal));
        loop = take(Loop::make());
        start();
    }
    // A successor when the journal was used before.
    void start(bool successor = false, unsigned first_turns = 2) {
        HandoverReader reader = hand_over();
        auto made = net::frontend_half().serve({.loop = *loop,
                                                .hypervisor = hypervisor,
                                                .address = {.device_class = "vif",
                                                            .role = Role::frontend,
                                                            .frontend = DomainId(1),
                                                            .backend = DomainId(2)},
                                                .journal = journal,
                                                .successor = successor,
                                                .stats = stats,
                                                .log = log,
                                                .broken = [this](const Error& error) { faults.push_back(error); },
                                                .publish =
                                                    [this](std::string_view key, std::string_view value) {
                                                        published.emplace_back(std::string(key), std::string(value));
                                                    },
                                                .group = group},
                                               reader);
        if (!made) throw std::runtime_error(made.error().message());
        worker = std::move(*made);
        turns(first_turns);
    }
    // As a kill would: nothing is given back, the journal and the rings stay as they are.
    void kill() {
        static auto& killed = *new std::vector<DeviceWorker*>;  // what they hold stays, and is no leak
        killed.push_back(worker.release());
        new_loop();
    }

    void turns(unsigned count = 3) {
        for (unsigned i = 0; i < count; ++i) (void)loop->turn({});
    }
    bool broken() const { return !faults.empty(); }

    // A frame for the backend to receive.
    void program_sends(std::span<const std::byte> frame, net::VirtioHeader header = {}, unsigned queue = 0) {
        const iovec parts[2] = {{&header, sizeof header}, {const_cast<std::byte*>(frame.data()), frame.size()}};
        (void)!::writev(ends.queue[queue].get(), parts, 2);
    }
    struct Frame {
        net::VirtioHeader header;
        std::vector<std::byte> bytes;
    };
    std::optional<Frame> program_receives(unsigned queue = 0) {
        Frame frame{{}, std::vector<std::byte>(70000)};
        const iovec parts[2] = {{&frame.header, sizeof frame.header}, {frame.bytes.data(), frame.bytes.size()}};
        const ssize_t got = ::readv(ends.queue[queue].get(), parts, 2);
        if (got < static_cast<ssize_t>(sizeof frame.header)) return std::nullopt;
        frame.bytes.resize(static_cast<std::size_t>(got) - sizeof frame.header);
        return frame;
    }
    unsigned frames_received() {
        unsigned count = 0;
        while (program_receives()) ++count;
        return count;
    }
    Queue& queue(unsigned i = 0) { return queues[i]; }
    void ring_bell(unsigned i = 0) { (void)queues[i].channel.theirs.notify(); }

    static net::frontend::Link default_link() {
        return {
            .queues = 1,
            .largest = net::max_packet,
            .peer = {
                .scatter_gather = true, .gso_tcpv4 = true, .gso_tcpv6 = true, .csum_ipv4 = true, .csum_ipv6 = true}};
    }

    net::frontend::Link link;
    PrivateHypervisor hypervisor;
    net::frontend::SocketEnds ends;
    std::unique_ptr<net::frontend::Attachment> attachment;
    std::vector<Queue> queues;
    SharedPages control_pages;
    std::optional<Control> control;
    LooseChannel control_channel;
    std::vector<std::byte> journal;
    DeviceStats stats;
    Log log{"vif under test"};
    std::shared_ptr<void> group;
    std::vector<Error> faults;
    std::vector<std::pair<std::string, std::string>> published;
    std::unique_ptr<Loop> loop;
    std::vector<std::unique_ptr<Loop>> dead_loops;
    std::unique_ptr<DeviceWorker> worker;

  private:
    template <class T>
    static T take(Result<T> result) {
        if (!result) throw std::runtime_error(result.error().message());
        return std::move(*result);
    }
    template <class P>
    SharedPages ring_page() {
        SharedPages page = take(hypervisor.share(DomainId(2), 1, Access::read_write));
        hypervisor.shared_elsewhere(page.refs()[0]);
        RingIndices unused;
        (void)FrontRing<P>::initialise(page.memory(), unused);
        return page;
    }
    void new_loop() {
        dead_loops.push_back(std::move(loop));
        loop = take(Loop::make());
    }
    HandoverReader hand_over() {
        Handover handover;
        handover.put(link);
        const auto ports = take(attachment->queues(link.queues));
        for (unsigned i = 0; i < link.queues; ++i) {
            (void)handover.put(*ports[i]);
            (void)handover.put(queues[i].tx_pages);
            (void)handover.put(queues[i].rx_pages);
            (void)handover.put(queues[i].channel.ours);
        }
        if (link.receive_hash) {
            (void)handover.put(control_pages);
            (void)handover.put(control_channel.ours);
        }
        return take(handover.reader());
    }
};

}  // namespace caisson::test
