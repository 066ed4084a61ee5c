// What one domain can reach of another: pages and event channels.
//
// Usage: lab_reach offer DOMID          grants DOMID a page and waits for it to bind an event channel, until it is
// killed;
//                                       says "REF PORT", with PORT 0 when the hypervisor refuses the channel
//        lab_reach take DOMID REF PORT  says "map=W copy=W bind=W", W being yes, or the error's number
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ring/port.h"

using namespace caisson;

namespace {

int offer(Hypervisor& hypervisor, DomainId peer) {
    auto pages = hypervisor.share(peer, 1, Access::read_write);
    if (!pages) return std::fprintf(stderr, "%s\n", pages.error().message().c_str()), 1;
    auto channel = hypervisor.allocate_unbound(peer);
    std::printf("%u %u\n", pages->refs().front().raw, channel ? channel->port().raw : 0);
    std::fflush(stdout);
    while (true) ::pause();
}

std::string word(const Status& done) { return done ? "yes" : std::to_string(done.error().err); }

int take(Hypervisor& hypervisor, DomainId peer, GrantRef ref, Port port) {
    const auto mapped = hypervisor.map(peer, std::span(&ref, 1), Access::read_write);
    std::array<std::byte, 16> bytes{};
    GrantCopy one{.direction = GrantCopy::Direction::from_peer,
                  .source = {.domain = peer, .ref = ref, .offset = 0, .length = bytes.size()},
                  .local = bytes.data()};
    Status copied = hypervisor.copy(std::span(&one, 1));
    if (copied && one.status != GrantStatus::okay) copied = host_fault(static_cast<int>(one.status), "copy");
    const auto bound = hypervisor.bind_interdomain(peer, port);
    std::printf("map=%s copy=%s bind=%s\n", word(mapped ? Status{} : std::unexpected(mapped.error())).c_str(),
                word(copied).c_str(), word(bound ? Status{} : std::unexpected(bound.error())).c_str());
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    const auto number = [&](int i) { return static_cast<std::uint32_t>(std::strtoul(arguments[i], nullptr, 10)); };
    const bool offers = count == 3 && std::strcmp(arguments[1], "offer") == 0;
    const bool takes = count == 5 && std::strcmp(arguments[1], "take") == 0;
    if (!offers && !takes) return std::fputs("usage: lab_reach offer DOMID | take DOMID REF PORT\n", stderr), 2;
    const auto hypervisor = open_hypervisor(find_hypervisor());
    if (!hypervisor) return std::fprintf(stderr, "%s\n", hypervisor.error().message().c_str()), 1;
    const DomainId peer(static_cast<std::uint16_t>(number(2)));
    return offers ? offer(**hypervisor, peer) : take(**hypervisor, peer, GrantRef(number(3)), Port(number(4)));
}
