// Bytes as messages to the broker: any connection, any call, any order, connections and domains coming and going.
//
// Each step of the input is: who (a byte), what (a byte), a length (a byte), and that many bytes that are laid over a
// message of the right size. After every input the tables are recounted, and everything must be released in the end.
#include <fcntl.h>

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <vector>

#include "domains/hypervisor/hypercalls.h"

namespace {

using namespace caisson;
using namespace caisson::hypervisor;
using caisson::local::Op;

constexpr Limits small{.domains = 5,
                       .grants = 64,
                       .regions = 12,
                       .pages_per_share = 16,
                       .mappings = 10,
                       .ports = 8,
                       .connections = 4,
                       .descriptors = 64};

std::size_t size_of(Op op) {
    switch (op) {
        case Op::hello: return sizeof(local::HelloRequest);
        case Op::share: return sizeof(local::ShareRequest);
        case Op::activate:
        case Op::reclaim:
        case Op::end: return sizeof(local::RefRequest);
        case Op::map: return sizeof(local::MapRequest);
        case Op::unmap: return sizeof(local::UnmapRequest);
        case Op::fetch: return sizeof(local::FetchRequest);
        case Op::status:
        case Op::allocate_unbound: return sizeof(local::PeerRequest);
        case Op::bind_interdomain: return sizeof(local::BindRequest);
        case Op::close_port: return sizeof(local::PortRequest);
        case Op::restrict_to: return sizeof(local::RestrictRequest);
        case Op::create_domain: return sizeof(local::CreateRequest);
        case Op::destroy_domain: return sizeof(local::DestroyRequest);
        case Op::list_domains: return sizeof(local::ListRequest);
    }
    return sizeof(local::Request);
}

struct Input {
    std::span<const std::uint8_t> left;
    std::uint8_t byte() {
        if (left.empty()) return 0;
        const std::uint8_t value = left.front();
        left = left.subspan(1);
        return value;
    }
    std::span<const std::uint8_t> bytes(std::size_t count) {
        const auto taken = left.first(std::min(count, left.size()));
        left = left.subspan(taken.size());
        return taken;
    }
};

struct Machine {
    Hypercalls calls{OwnDescriptors::open().value(), small};
    std::vector<ConnectionId> connections;
    std::vector<DomainKey> domains;

    Machine() {
        domains.push_back(*calls.current(control_domain));
        connect(0);
        for (int i = 0; i < 2; ++i) create();
        connect(1);
        connect(2);
    }
    void connect(std::size_t which) {
        if (const auto id = calls.connect(domains[which % domains.size()])) connections.push_back(*id);
    }
    void create() {
        local::CreateRequest request{};
        request.head.op = static_cast<std::uint32_t>(Op::create_domain);
        take(calls.handle(connections[0], local::bytes_of(request), two_descriptors()));
    }
    static std::vector<Fd> two_descriptors() {
        std::vector<Fd> made;
        for (int i = 0; i < 2; ++i) made.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
        return made;
    }
    void take(const Answer& answer) {
        if (answer.created) domains.push_back(answer.created->key);
        if (answer.restricted) connections.push_back(answer.restricted->id);
        if (answer.destroyed) release(*answer.destroyed);
        if (!answer.bytes.empty() && answer.bytes.size() < sizeof(local::Reply)) std::abort();
    }
    void release(DomainKey domain) {
        calls.dying(domain);
        calls.release(domain);
        calls.release(domain);
    }
    void step(Input& input) {
        const std::uint8_t who = input.byte(), what = input.byte(), length = input.byte();
        const auto over = input.bytes(length);
        if (what == 0xFF) return connect(who);
        if (what == 0xFE) return calls.disconnect(connections[who % connections.size()]);
        if (what == 0xFD) return domains.size() > 1 ? release(domains[1 + who % (domains.size() - 1)]) : void();
        const auto op = static_cast<Op>(what % 32);
        std::vector<std::byte> message(what >= 0xF0 ? over.size() : std::max(size_of(op), over.size()));
        if (what < 0xF0 && over.size() < size_of(op)) message.resize(size_of(op));
        const local::Request head{.op = static_cast<std::uint32_t>(op), .zero = 0, .id = who};
        if (message.size() >= sizeof head) {
            std::memcpy(message.data(), &head, sizeof head);
            std::memcpy(message.data() + sizeof head, over.data(), std::min(over.size(), message.size() - sizeof head));
        }
        const bool descriptors = op == Op::create_domain && (who & 0x80) == 0;
        take(calls.handle(connections[who % connections.size()], message,
                          descriptors ? two_descriptors() : std::vector<Fd>()));
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Machine machine;
    Input input{{data, size}};
    for (int steps = 0; !input.left.empty() && steps < 200; ++steps) {
        machine.step(input);
        if (!machine.calls.grants().exact()) std::abort();
    }
    for (const DomainKey& domain : machine.domains)
        if (domain.id != control_domain) machine.release(domain);
    for (const ConnectionId connection : machine.connections) machine.calls.disconnect(connection);
    if (machine.calls.grants().regions() != 0 || machine.calls.events().ports() != 0) std::abort();
    return 0;
}
