// A block frontend's data path whose backend is the test: it writes any bytes into the rings and pages and sees what
// the frontend makes of them. Turn by turn in one thread, on a PrivateHypervisor; the programs of the disk are the
// test, too: submit(), or messages of FUSE over a socket in place of /dev/fuse.
//
// Either the data path in the test's hands (no loop: time is tick()), or, with start_worker(), a real worker.
#pragma once

#include <sys/socket.h>

#include <cstring>
#include <map>
#include <stdexcept>

#include "frontends/block/attachment_nbd.h"
#include "frontends/block/block.h"
#include "frontends/block/fuse_server.h"
#include "frontends/block/link.h"
#include "frontends/block/nbd_server.h"
#include "tests/support/loose_channel.h"
#include "tests/support/nbd_driver.h"
#include "tests/support/private_hypervisor.h"
#include "tests/support/raw_ring.h"

namespace caisson::test {

class BlockFrontendAlone {
  public:
    using Request = block::Native::Request;
    using Response = block::Native::Response;
    static constexpr std::uint32_t arena_pages = 300;

    struct Options {
        unsigned queues = 1, ring_pages = 1;
        bool fuse = false, nbd = false;
        unsigned patience = 3;  // ticks
        block::frontend::Features features = disk();
    };
    static block::frontend::Features disk(std::uint64_t sectors = 2048, std::uint32_t segments = 32) {
        return {.geometry = {.sectors = sectors, .flush = true, .barrier = true, .discard = true},
                .segments = segments,
                .connected = true};
    }

    struct Queue {
        SharedPages pages;
        LooseChannel channel;
        RawRing<block::Native> ring;
    };

    BlockFrontendAlone() : BlockFrontendAlone(Options{}) {}
    explicit BlockFrontendAlone(Options wanted) : options(wanted) {
        arena = share(arena_pages);
        descriptors = share(block::frontend::descriptor_pages);
        for (unsigned i = 0; i < options.queues; ++i) {
            SharedPages pages = share(options.ring_pages);
            const SharedSpan memory = pages.memory();
            RingIndices unused;
            (void)FrontRing<block::Native>::initialise(memory, unused);
            queues.push_back({std::move(pages), LooseChannel::make(), RawRing<block::Native>(memory)});
        }
        if (options.nbd) {
            auto sockets = take(block::frontend::NbdSockets::make());
            driver.emplace(std::move(sockets.drivers));
            attachment = std::move(sockets.ours);
        }
        if (!options.fuse) return;
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
        kernel.reset(ends[0]), attachment.reset(ends[1]);
        const int room = 4 << 20;
        ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        ::setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    }

    // The data path, as a new connection or, when the journal was used before, a successor.
    void open() {
        server.reset(), path.reset(), requests.reset();
        kept.write(options.features);
        HandoverReader reader = hand_over();
        const auto link = take(block::frontend::read_link(reader));
        (void)take(reader.fd());
        requests = take(block::frontend::Requests::attach(kept->disk.entries, link.arena_pages));
        auto taken =
            take(block::frontend::take_over(link, reader, hypervisor, *requests, *journal, stats, options.patience));
        path = std::move(taken.path);
        if (options.fuse)
            server =
                std::make_unique<block::frontend::FuseServer>(std::move(taken.attachment), kept->disk.inbox, *path);
        if (options.nbd)
            server = take(block::frontend::NbdServer::open(std::move(taken.attachment), kept->disk.inbox, *path));
        know(kept.read());
    }
    // Another connection: rings, journal and backend begin anew, the table stays.
    void reconnect() {
        *journal = {};
        for (Queue& queue : queues) {
            RingIndices unused;
            (void)FrontRing<block::Native>::initialise(queue.pages.memory(), unused);
            queue.ring = RawRing<block::Native>(queue.pages.memory());
        }
        faults.clear();
        open();
    }
    void know(const block::frontend::Features& features) {
        if (broken()) return;
        if (const Status known = path->know(features); !known) faults.push_back(known.error());
    }
    void start_worker() {
        kept.write(options.features);
        loop = take(Loop::make());
        HandoverReader reader = hand_over();
        bytes.resize(sizeof *journal);
        worker = take(block::frontend_half().serve({.loop = *loop,
                                                    .hypervisor = hypervisor,
                                                    .address = {.device_class = "vbd",
                                                                .role = Role::frontend,
                                                                .frontend = DomainId(1),
                                                                .backend = DomainId(2)},
                                                    .journal = bytes,
                                                    .successor = false,
                                                    .stats = stats,
                                                    .log = log,
                                                    .broken = [this](const Error& error) { faults.push_back(error); },
                                                    .publish = [](std::string_view, std::string_view) {},
                                                    .group = group},
                                                   reader));
        turns();
    }
    void turns(unsigned count = 3) {
        for (unsigned i = 0; i < count; ++i) (void)loop->turn({});
    }

    // ---- The program ----
    std::optional<Tag> submit(block::Operation operation, std::uint64_t offset, std::uint64_t length,
                              std::uint64_t cookie = 0, std::byte fill = std::byte{0x5A}) {
        if (broken() || path->check(operation, false, offset, length) != 0) return std::nullopt;
        const std::vector<std::byte> data(length, fill);
        const iovec one{const_cast<std::byte*>(data.data()), data.size()};
        const bool writes = operation == block::Operation::write || operation == block::Operation::barrier;
        const auto tag = path->submit({.operation = operation, .offset = offset, .length = length, .cookie = cookie},
                                      writes && length > 0 ? std::span(&one, 1) : std::span<const iovec>());
        path->ring_bells();
        return tag;
    }
    // Takes every answer that there is.
    void poll() {
        for (unsigned queue = 0; queue < options.queues && !broken(); ++queue) {
            const auto polled = path->poll(queue, 1000, [this](Tag tag, std::uint64_t cookie, int error) {
                if (ended.emplace(cookie, error).second == false) ++twice;
                const auto& entry = (*requests)[tag];
                if (error == 0 && entry.operation == 0) {
                    last_read.resize(entry.length);
                    const iovec to{last_read.data(), last_read.size()};
                    path->copy_out(tag, 0, {&to, 1});
                }
                if (server) server->ended(tag, cookie, error);
            });
            if (!polled) faults.push_back(polled.error());
        }
        if (!server || broken()) return;
        (void)server->serve(32);
        path->ring_bells();
    }
    void tick(unsigned count = 1) {
        for (unsigned i = 0; i < count && !broken(); ++i) path->tick();
    }
    bool broken() const { return !faults.empty(); }

    // A message of the kernel, and one of the answers.
    template <class Body>
    void fuse(std::uint32_t opcode, const Body& body, std::span<const std::byte> data = {}) {
        fuse_in_header header{};
        header.opcode = opcode, header.unique = ++unique, header.nodeid = FUSE_ROOT_ID;
        header.len = static_cast<std::uint32_t>(sizeof header + sizeof body + data.size());
        const iovec parts[3] = {{&header, sizeof header},
                                {const_cast<Body*>(&body), sizeof body},
                                {const_cast<std::byte*>(data.data()), data.size()}};
        (void)!::writev(kernel.get(), parts, 3);
    }
    struct FuseAnswer {
        fuse_out_header header{};
        std::vector<std::byte> body;
    };
    std::optional<FuseAnswer> fuse_answer() {
        FuseAnswer one;
        mail.resize(1100000);
        const iovec parts[2] = {{&one.header, sizeof one.header}, {mail.data(), mail.size()}};
        const ssize_t got = ::readv(kernel.get(), parts, 2);
        if (got < static_cast<ssize_t>(sizeof one.header)) return std::nullopt;
        one.body.assign(mail.begin(), mail.begin() + (got - static_cast<ssize_t>(sizeof one.header)));
        return one;
    }

    // ---- The backend ----
    RawRing<block::Native>& ring(unsigned queue = 0) { return queues[queue].ring; }
    std::vector<Request> taken(unsigned queue = 0) {
        std::vector<Request> all;
        while (all.size() < block::frontend::most_tags) {  // a test may have written any index there
            const auto request = ring(queue).take();
            if (!request) break;
            all.push_back(*request);
        }
        return all;
    }
    // What a well-behaved backend answers.
    static Response answer_to(const Request& request, std::int16_t status = block::status::okay) {
        const bool indirect = request.operation == block::operation::indirect;
        return {.id = request.id,
                .operation = indirect ? request.count : request.operation,
                .pad = 0,
                .status = status,
                .pad2 = 0};
    }
    void answer(const Request& request, std::int16_t status = block::status::okay, unsigned queue = 0) {
        ring(queue).respond(answer_to(request, status));
    }
    static block::Segment segment(const Request& request, unsigned which = 0) {
        block::Segment one;
        std::memcpy(&one, request.tail.data() + which * sizeof one, sizeof one);
        return one;
    }

    Options options;
    PrivateHypervisor hypervisor;
    SharedPages arena, descriptors;
    std::vector<Queue> queues;
    block::frontend::KeptMemory kept = take(block::frontend::KeptMemory::make());
    std::unique_ptr<block::frontend::ConnectionJournal> journal =
        std::make_unique<block::frontend::ConnectionJournal>();
    std::optional<block::frontend::Requests> requests;
    std::unique_ptr<block::frontend::DataPath> path;
    Fd kernel, attachment;
    std::optional<NbdDriver> driver;
    std::unique_ptr<block::frontend::AttachmentServer> server;
    std::uint64_t unique = 0;
    DeviceStats stats;
    Log log{"vbd under test"};
    std::shared_ptr<void> group;
    std::vector<Error> faults;
    std::map<std::uint64_t, int> ended;  // cookie to error
    unsigned twice = 0;
    std::vector<std::byte> last_read, bytes, mail;
    std::unique_ptr<Loop> loop;
    std::unique_ptr<DeviceWorker> worker;

  private:
    template <class T>
    static T take(Result<T> result) {
        if (!result) throw std::runtime_error(result.error().message());
        return std::move(*result);
    }
    SharedPages share(std::uint32_t pages) {
        SharedPages shared = take(hypervisor.share(DomainId(2), pages, Access::read_write));
        hypervisor.shared_elsewhere(shared.refs()[0]);
        return shared;
    }
    HandoverReader hand_over() {
        Handover handover;
        handover.journal_bytes = sizeof *journal;
        using Kind = block::frontend::Attachment::Kind;
        handover.put(block::frontend::Link{.queues = options.queues,
                                           .arena_pages = arena_pages,
                                           .attachment = options.fuse  ? Kind::fuse
                                                         : options.nbd ? Kind::nbd
                                                                       : Kind::none});
        need(handover.put(kept.fd()));
        need(handover.put(arena));
        need(handover.put(descriptors));
        for (Queue& queue : queues) {
            need(handover.put(queue.pages));
            need(handover.put(queue.channel.ours));
        }
        if (options.fuse || options.nbd) need(handover.put(attachment));
        return take(handover.reader());
    }
    static void need(const Status& status) {
        if (!status) throw std::runtime_error(status.error().message());
    }
};

}  // namespace caisson::test
