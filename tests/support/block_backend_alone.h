// A real block backend worker whose guest is the test: it writes any bytes into the rings and pages and sees what the
// worker makes of them. Turn by turn in one thread, on a LendingHypervisor.
//
// The host is null, memory (a memfd that the test can look into), or a ScriptedHost: then the test also decides when
// and how each Io ends.
#pragma once

#include <sys/mman.h>

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "backends/block/block.h"
#include "backends/block/journal.h"
#include "backends/block/worker.h"
#include "tests/support/lending_hypervisor.h"
#include "tests/support/loose_channel.h"
#include "tests/support/ring_words.h"

namespace caisson::test {

// The frontend's end of a ring, without any manners. Any number of pages.
template <class P>
class BlockRing : public RingWords<P> {
  public:
    using Request = typename P::Request;
    using Response = typename P::Response;

    explicit BlockRing(SharedSpan ring) : RingWords<P>(ring) { (void)FrontRing<P>::initialise(ring, unused_); }

    std::uint32_t slots() const { return ring_slots<P>(this->page().size()); }
    void put(std::uint32_t index, const Request& request) { this->put_slot(index, request); }
    // As the next request, visible when shown.
    void add(const Request& request) { put(produced_++, request); }
    void show() { producer(produced_); }
    void producer(std::uint32_t value) { this->put_request_producer(value); }
    void response_event(std::uint32_t value) { this->put_response_event(value); }
    std::uint32_t taken() const { return taken_; }
    std::uint32_t produced() const { return produced_; }
    std::optional<Response> take() {
        if (taken_ == this->response_producer()) return std::nullopt;
        return this->template slot<Response>(taken_++);
    }
    std::vector<Response> take_all() {
        std::vector<Response> all;
        while (auto one = take()) all.push_back(*one);
        return all;
    }

  private:
    RingIndices unused_;
    std::uint32_t produced_ = 0, taken_ = 0;
};

// What the scripted hosts of one disk share, over deaths of the worker: content, and what is durable.
struct ScriptedDisk {
    struct Pending {
        Tag tag;
        block::Operation operation;
        bool secure;
        std::uint64_t offset, length;
        std::vector<SharedSpan> shared;
        std::span<std::byte> bounced;
    };
    std::vector<std::byte> content;
    std::vector<Pending> pending;
    std::vector<block::Operation> submitted;  // all there ever were, in order
    bool ready = true;
    bool at_once = false;  // ends every Io in submit()
    int error = 0;         // of what ends at once
    block::backend::Completions* completions = nullptr;

    // Ends pending[i]: moves its data, or fails.
    void finish(std::size_t i, int with = 0) {
        const Pending io = pending.at(i);
        pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(i));
        if (with == 0) move(io);
        completions->done(io.tag, with);
    }
    void finish_all(int with = 0) {
        while (!pending.empty()) finish(0, with);
    }
    void move(const Pending& io) {
        if (io.operation != block::Operation::read && io.operation != block::Operation::write) return;
        const bool read = io.operation == block::Operation::read;
        std::span<std::byte> disk = std::span(content).subspan(io.offset, io.length);
        if (!io.bounced.empty())
            return void(
                std::memcpy(read ? io.bounced.data() : disk.data(), read ? disk.data() : io.bounced.data(), io.length));
        for (const SharedSpan& part : io.shared) {
            (void)(read ? part.copy_in(0, disk.first(part.size())) : part.copy_out(0, disk.first(part.size())));
            disk = disk.subspan(part.size());
        }
    }
};

class ScriptedHost final : public block::backend::Host {
  public:
    ScriptedHost(ScriptedDisk& disk, const block::Geometry& geometry, block::backend::Completions& completions)
        : disk_(disk), geometry_(geometry), completions_(completions) {
        disk_.pending.clear();  // a predecessor's are with nobody
        disk_.completions = &completions;
    }
    bool ready() override { return disk_.ready; }
    block::Geometry geometry() const override { return geometry_; }
    void submit(const block::backend::Io& io) override {
        disk_.submitted.push_back(io.operation);
        disk_.pending.push_back(
            {io.tag, io.operation, io.secure, io.offset, io.length, {io.shared.begin(), io.shared.end()}, io.bounced});
        if (disk_.at_once) disk_.finish(disk_.pending.size() - 1, disk_.error);
    }
    void resized(std::uint64_t sectors) override {
        geometry_.sectors = std::min<std::uint64_t>(sectors, disk_.content.size() / block::wire_sector);
    }
    std::size_t pending() const override { return disk_.pending.size(); }

  private:
    ScriptedDisk& disk_;
    block::Geometry geometry_;
    block::backend::Completions& completions_;
};

struct BlockBackendOptions {
    block::backend::HostKind host = block::backend::HostKind::memory;
    bool scripted = false;  // instead of `host`
    block::Abi abi = block::Abi::native;
    unsigned queues = 1, ring_pages = 1;
    bool direct_view = true, persistent = false;
    std::uint32_t max_persistent = 64, bounce_bytes = 0;
    std::uint64_t sectors = 2048;  // 1 MiB
    std::uint32_t sector_size = 512, info = 0;
    block::backend::RateLimit rate{};
};

template <class Abi = block::Native>
class BlockBackendAlone {
  public:
    using Request = typename Abi::Request;
    using Response = typename Abi::Response;
    struct Queue {
        std::uint32_t first_ref;
        BlockRing<Abi> ring;
        LooseChannel channel;
    };
    struct Page {
        std::uint32_t ref = 0;
        SharedSpan memory;
    };

    explicit BlockBackendAlone(BlockBackendOptions wanted = {}) : options(wanted), hypervisor(wanted.direct_view) {
        if constexpr (std::is_same_v<Abi, block::Narrow>) options.abi = block::Abi::x86_32;
        for (unsigned i = 0; i < options.queues; ++i) {
            const auto lent = hypervisor.lend(options.ring_pages, Access::read_write);
            queues.push_back({lent.first, BlockRing<Abi>(lent.memory), LooseChannel::make()});
        }
        disk.content.resize(options.sectors * block::wire_sector);
        file.reset(::memfd_create("disk", MFD_CLOEXEC));
        if (::ftruncate(file.get(), static_cast<off_t>(disk.content.size())) != 0)
            throw std::runtime_error("ftruncate");
        journal_store.resize(block::backend::journal_bytes(config()) / sizeof(block::backend::QueueHead));
        journal = std::as_writable_bytes(std::span(journal_store));
        loop = need(Loop::make());
        start();
    }
    ~BlockBackendAlone() { worker.reset(); }

    block::backend::Config config() const {
        block::backend::Config out{.host = options.host, .abi = options.abi, .queues = options.queues};
        out.ring_pages = options.ring_pages;
        out.persistent = options.persistent;
        out.geometry = {.sectors = options.sectors,
                        .sector_size = options.sector_size,
                        .physical_sector_size = options.sector_size,
                        .info = options.info,
                        .discard_granularity = options.sector_size,
                        .flush = true,
                        .barrier = true,
                        .discard = true};
        out.rate = options.rate;
        out.max_persistent = options.max_persistent;
        out.bounce_bytes = options.bounce_bytes;
        return out;
    }

    void start(bool successor = false) {
        Handover handover;
        handover.put(config());
        for (Queue& queue : queues) {
            std::vector<GrantRef> refs;
            for (unsigned i = 0; i < options.ring_pages; ++i) refs.emplace_back(queue.first_ref + i);
            handover.put(std::span<const GrantRef>(refs));
            (void)handover.put(queue.channel.ours);
        }
        if (!options.scripted && options.host == block::backend::HostKind::memory) (void)handover.put(file);
        HandoverReader reader = need(handover.reader());
        const auto make =
            [this](WorkerContext& context, const block::backend::Config& settings, HandoverReader& rest,
                   block::backend::Completions& completions) -> Result<std::unique_ptr<block::backend::Host>> {
            if (!options.scripted) return block::backend::make_host(context, settings, rest, completions);
            return std::make_unique<ScriptedHost>(disk, settings.geometry, completions);
        };
        auto made = block::backend::Worker::serve_with(
            {.loop = *loop,
             .hypervisor = hypervisor,
             .address = {.device_class = "vbd", .role = Role::backend, .frontend = DomainId(2), .backend = DomainId(1)},
             .journal = journal,
             .successor = successor,
             .stats = stats,
             .log = log,
             .broken = [this](const Error& error) { faults.push_back(error); },
             .publish = [this](std::string_view key, std::string_view value) { published.emplace_back(key, value); },
             .group = group},
            reader, make);
        if (!made)
            faults.push_back(made.error());
        else
            worker = std::move(*made);
    }
    // As a kill would: nothing is given back, the journal and the rings stay as they are.
    void kill() {
        static auto* dead = new std::vector<std::pair<std::unique_ptr<DeviceWorker>, std::unique_ptr<Loop>>>;
        dead->emplace_back(std::move(worker), std::move(loop));
        loop = need(Loop::make());
    }
    void restart() {
        kill();
        start(true);
    }
    void turns(unsigned count = 3) {
        for (unsigned i = 0; i < count; ++i) (void)loop->turn({});
    }
    void show_and_turn(unsigned n = 0) {
        queues[n].ring.show();
        turns();
    }
    bool broken() const { return !faults.empty(); }
    BlockRing<Abi>& ring(unsigned n = 0) { return queues[n].ring; }
    std::uint32_t pages_mapped() const { return static_cast<block::backend::Worker*>(worker.get())->pages_mapped(); }
    block::backend::JournalHead& journal_head() {
        return *reinterpret_cast<block::backend::JournalHead*>(journal.data());
    }

    Page page(Access access = Access::read_write) {
        const auto lent = hypervisor.lend(1, access);
        return {lent.first, lent.memory};
    }
    static void fill(const Page& to, unsigned seed) {
        std::vector<std::byte> bytes(page_size);
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(seed * 31 + i * 7 + (i >> 8));
        (void)to.memory.copy_in(0, bytes);
    }
    static std::vector<std::byte> bytes(const Page& of) {
        std::vector<std::byte> out(page_size);
        (void)of.memory.copy_out(0, out);
        return out;
    }
    // What is on the disk.
    std::vector<std::byte> on_disk(std::uint64_t offset, std::size_t length) const {
        std::vector<std::byte> out(length);
        if (options.scripted)
            std::memcpy(out.data(), disk.content.data() + offset, length);
        else if (::pread(file.get(), out.data(), length, static_cast<off_t>(offset)) < 0)
            throw std::runtime_error("pread");
        return out;
    }

    BlockBackendOptions options;
    LendingHypervisor hypervisor;
    std::vector<Queue> queues;
    ScriptedDisk disk;
    Fd file;
    std::vector<block::backend::QueueHead> journal_store;  // for its alignment
    std::span<std::byte> journal;
    DeviceStats stats;
    Log log{"vbd under test"};
    std::shared_ptr<void> group;
    std::vector<Error> faults;
    std::vector<std::pair<std::string, std::string>> published;
    std::unique_ptr<Loop> loop;
    std::unique_ptr<DeviceWorker> worker;
    GrantStatus last_status = GrantStatus::okay;  // a place for view() to say how it went

  private:
    template <class T>
    static T need(Result<T> result) {
        if (!result) throw std::runtime_error(result.error().message());
        return std::move(*result);
    }
};

// ---- Requests ------------------------------------------------------------------------------------------------------

inline block::Segment whole_page(std::uint32_t ref) { return {ref, 0, 7, 0}; }

// Any head, any segments: nothing is checked.
inline block::Native::Request block_request(std::uint8_t operation, std::uint64_t id, std::uint64_t sector,
                                            const std::vector<block::Segment>& segments) {
    block::Native::Request out{};
    out.operation = operation;
    out.count = static_cast<std::uint8_t>(segments.size());
    out.id = id;
    out.sector = sector;
    const std::size_t bytes = std::min(segments.size(), std::size_t{block::direct_segments}) * sizeof(block::Segment);
    if (bytes != 0) std::memcpy(out.tail.data(), segments.data(), bytes);
    return out;
}
inline block::Narrow::Request narrow(const block::Native::Request& wide) {
    return {wide.operation,
            wide.count,
            wide.handle,
            block::Narrow::Word64::of(wide.id),
            block::Narrow::Word64::of(wide.sector),
            wide.tail};
}
inline block::Native::Request block_indirect(std::uint8_t operation, std::uint64_t id, std::uint64_t sector,
                                             std::uint16_t segments, std::uint32_t page_of_segments) {
    block::Native::Request out{};
    out.operation = block::operation::indirect;
    out.count = operation;
    out.handle = segments;
    out.id = id;
    out.sector = sector;
    std::memcpy(out.tail.data() + 4, &page_of_segments, sizeof page_of_segments);
    return out;
}
inline block::Native::Request block_discard(std::uint64_t id, std::uint64_t sector, std::uint64_t count,
                                            bool secure = false) {
    block::Native::Request out{};
    out.operation = block::operation::discard;
    out.count = secure ? 1 : 0;
    out.id = id;
    out.sector = sector;
    std::memcpy(out.tail.data(), &count, sizeof count);
    return out;
}

}  // namespace caisson::test
