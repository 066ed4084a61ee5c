// A console's backend and frontend workers in one process, with a page that the input rewrites between their turns, and
// the parsers and filters beside them. The input is a script: an operation, then its operands.
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/console/worker.h"
#include "frontends/console/worker.h"
#include "ring/detail/shared_access.h"
#include "ring/escape.h"

namespace {

using namespace caisson;

void demand(bool truth) {
    if (!truth) std::abort();
}

template <class T>
T need(Result<T> result) {
    demand(result.has_value());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

class Script {
  public:
    explicit Script(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
    bool ended() const { return bytes_.empty(); }
    std::uint8_t byte() {
        if (bytes_.empty()) return 0;
        const std::uint8_t first = bytes_[0];
        bytes_ = bytes_.subspan(1);
        return first;
    }
    std::uint32_t word() { return byte() | byte() << 8 | byte() << 16 | static_cast<std::uint32_t>(byte()) << 24; }
    std::span<const std::uint8_t> some(std::size_t most) {
        const auto piece = bytes_.first(std::min(most, bytes_.size()));
        bytes_ = bytes_.subspan(piece.size());
        return piece;
    }

  private:
    std::span<const std::uint8_t> bytes_;
};

// Only what a worker asks of it: the one page, whoever asks.
class OnePage final : public Hypervisor {
  public:
    explicit OnePage(std::byte* page) : page_(page) {}
    DomainId self() const override { return DomainId(1); }
    Capabilities capabilities() const override { return {}; }
    Result<SharedPages> share(DomainId, std::uint32_t, Access) override { return unsupported("share"); }
    Result<SharedPages> adopt(DomainId peer, Fd fd, std::vector<GrantRef> refs) override {
        return SharedPages(*this, peer, Access::read_write, memory(), std::move(refs), std::move(fd));
    }
    Result<SharedPages> reclaim(GrantRef) override { return unsupported("reclaim"); }
    Result<MappedPages> map(DomainId, std::span<const GrantRef>, Access) override {
        return MappedPages(*this, 1, memory());
    }
    Status copy(std::span<GrantCopy>) override { return {}; }
    SharedSpan view(const GrantRange&, Access, GrantStatus&) override { return {}; }
    Result<EventChannel> allocate_unbound(DomainId) override { return unsupported("ports"); }
    Result<EventChannel> bind_interdomain(DomainId, Port) override { return unsupported("ports"); }
    void close(EventChannel) override {}
    Result<Fd> restrict_to(std::span<const DomainId>) override { return unsupported("restrict"); }
    std::size_t quarantined_pages() const override { return 0; }
    void retry_quarantine() override {}

  protected:
    Result<End> end(SharedPages&) override { return End::ended; }
    void quarantine(SharedPages&&) override {}
    void unmap(std::uint64_t, SharedSpan) override {}

  private:
    SharedSpan memory() { return detail::SharedAccess::span(page_, page_size); }
    std::byte* page_;
};

Fd nothing() { return Fd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }
Fd file() { return Fd(::memfd_create("log", MFD_CLOEXEC)); }

struct Channel {
    Fd ours, theirs;
    EventChannel channel;
    Channel() {
        int ends[2];
        demand(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
        ours.reset(ends[0]), theirs.reset(ends[1]);
        channel = EventChannel(EventChannel::Kind::local, DomainId(2), Port(1), std::move(ours), nothing());
    }
};

// One worker on the page, with a socket for a pty or a reader.
struct Served {
    Served(Loop& loop, Hypervisor& hypervisor, Role role, std::span<std::byte> memory, bool successor)
        : page(hypervisor), journal(memory) {
        int ends[2];
        demand(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
        outside.reset(ends[1]);
        Handover handover;
        if (role == Role::backend) {
            handover.put(console::BackendPlan{.host = console::HostKind::pty,
                                              .log = true,
                                              .log_timestamps = (journal.size() & 1) != 0,
                                              .limit = console::least_limit,
                                              .log_limit = console::least_log_limit});
            need(handover.put(channel.channel));
            need(handover.put(Fd(ends[0])));
            need(handover.put(log[0]));
            need(handover.put(log[1]));
        } else {
            const GrantRef ref(8);
            need(handover.put(SharedPages(page, DomainId(2), Access::read_write, {}, {ref}, nothing())));
            need(handover.put(channel.channel));
            need(handover.put(Fd(ends[0])));
        }
        HandoverReader reader = need(handover.reader());
        DeviceAddress address{.device_class = "console", .role = role, .frontend = DomainId(1), .backend = DomainId(2)};
        WorkerContext context{.loop = loop,
                              .hypervisor = page,
                              .address = address,
                              .journal = journal,
                              .successor = successor,
                              .stats = stats,
                              .log = words,
                              .broken =
                                  [this](const Error& error) {
                                      demand(error.fault == Fault::peer && !broken);
                                      broken = true;
                                  },
                              .publish = [](std::string_view, std::string_view) {},
                              .group = group};
        auto made = role == Role::backend ? console::BackendWorker::serve(std::move(context), reader)
                                          : console::FrontendWorker::serve(std::move(context), reader);
        if (made) worker = std::move(*made);
    }
    ~Served() {
        channel.theirs.reset();  // nobody is there to wait for
        worker.reset();
        if (log[0])
            for (const Fd& one : log) demand(::lseek(one.get(), 0, SEEK_END) <= console::least_log_limit / 2);
    }

    Hypervisor& page;
    std::span<std::byte> journal;
    Channel channel;
    Fd outside, log[2] = {file(), file()};
    DeviceStats stats;
    Log words{"fuzz"};
    std::shared_ptr<void> group;
    bool broken = false;
    std::unique_ptr<DeviceWorker> worker;
};

void filter(Script script) {
    EscapeState whole_state, state;
    std::string whole, pieces;
    const auto text = script.some(4096);
    escape(whole_state, std::as_bytes(text), "#", whole);
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t piece = std::min<std::size_t>(1 + text[at] % 7, text.size() - at);
        escape(state, std::as_bytes(text.subspan(at, piece)), "#", pieces);
        at += piece;
    }
    escape_rest(whole_state, "#", whole);
    escape_rest(state, "#", pieces);
    demand(whole == pieces);
    demand(whole.size() <= text.size() * worst_growth + worst_rest);
    for (const char c : whole) demand(static_cast<unsigned char>(c) >= 0x20 ? c != 0x7f : c == '\n' || c == '\t');
}

void settings(Script script) {
    const auto text = [&] {
        const auto bytes = script.some(script.byte());
        return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    const auto parsed = console::parse({.output = text(),
                                        .connection = text(),
                                        .path = text(),
                                        .name = text(),
                                        .limit = script.word(),
                                        .log = text(),
                                        .log_limit = script.word()});
    if (!parsed) return;
    demand((parsed->limit & (parsed->limit - 1)) == 0 && parsed->limit <= console::most_limit);
    demand(parsed->socket_path.size() <= console::longest_socket_path);
    demand(parsed->log_path.find("..") == std::string::npos || console::valid_path(parsed->log_path));
}

void workers(Script script, Role role) {
    alignas(64) std::byte page[page_size] = {};
    OnePage hypervisor(page);
    auto loop = need(Loop::make());
    std::vector<std::byte> journal(console::Journal::bytes(console::least_limit));
    std::optional<Served> side;
    side.emplace(*loop, hypervisor, role, journal, false);
    for (int steps = 0; steps < 200 && !script.ended() && side->worker; ++steps) {
        switch (script.byte() % 7) {
            case 0: {  // an index
                const std::uint32_t value = script.word();
                std::memcpy(page + console::in_consumer + 4 * (script.byte() % 4), &value, 4);
                break;
            }
            case 1: {  // an index a little further
                std::uint32_t value = 0;
                std::byte* const at = page + console::in_consumer + 4 * (script.byte() % 4);
                std::memcpy(&value, at, 4);
                value += script.byte() * 16u;
                std::memcpy(at, &value, 4);
                break;
            }
            case 2: {  // bytes of the rings
                const std::size_t at = script.word() % console::in_consumer;
                const auto some = script.some(64);
                std::memcpy(page + at, some.data(), std::min(some.size(), console::in_consumer - at));
                break;
            }
            case 3: (void)!::write(side->channel.theirs.get(), "x", 1); break;
            case 4: {  // whoever is outside types, or reads
                char buffer[4096] = {};
                if ((script.byte() & 1) != 0)
                    (void)!::write(side->outside.get(), buffer, script.byte());
                else
                    (void)!::read(side->outside.get(), buffer, sizeof buffer);
                break;
            }
            case 5: {  // death, and what the dead one left may be anything
                const std::uint8_t spoil = script.byte();
                side.reset();
                if ((spoil & 1) != 0) journal[script.byte() % 96] = std::byte{spoil};
                side.emplace(*loop, hypervisor, role, journal, true);
                break;
            }
            default: page[console::connection_offset] = std::byte{script.byte()};
        }
        loop->turn(std::chrono::milliseconds(0));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Script script(std::span(data, size));
    switch (script.byte() % 4) {
        case 0: filter(script); break;
        case 1: settings(script); break;
        case 2: workers(script, Role::backend); break;
        default: workers(script, Role::frontend);
    }
    return 0;
}
