// What one domain can reach of others: pages and event channels.
//
// Usage: lab_reach offer DOMID...
//            grants each a page and an event channel, and waits until it is killed; says "DOMID:REF:PORT ...", with
//            PORT 0 when the hypervisor refuses the channel
//        lab_reach take DOMID:REF:PORT...
//            tries what each has offered; says "DOMID:map=W,copy=W,bind=W ...", W being yes, or the error's number
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include "ring/port.h"

using namespace caisson;

namespace {

struct Offer {
    DomainId peer;
    GrantRef ref;
    Port port;
};

Offer parsed(const char* text) {
    unsigned peer = 0, ref = 0, port = 0;
    std::sscanf(text, "%u:%u:%u", &peer, &ref, &port);
    return {DomainId(static_cast<std::uint16_t>(peer)), GrantRef(ref), Port(port)};
}

int offer(Hypervisor& hypervisor, std::span<char*> peers) {
    std::vector<SharedPages> pages;
    std::vector<EventChannel> channels;
    for (const char* one : peers) {
        const DomainId peer = parsed(one).peer;
        auto page = hypervisor.share(peer, 1, Access::read_write);
        if (!page) return std::fprintf(stderr, "%s\n", page.error().message().c_str()), 1;
        auto channel = hypervisor.allocate_unbound(peer);
        std::printf("%u:%u:%u ", peer.raw, page->refs().front().raw, channel ? channel->port().raw : 0);
        pages.push_back(std::move(*page));
        if (channel) channels.push_back(std::move(*channel));
    }
    std::puts("");
    std::fflush(stdout);
    while (true) ::pause();
}

std::string word(const Status& done) { return done ? "yes" : std::to_string(done.error().err); }

void take(Hypervisor& hypervisor, const Offer& offered) {
    const auto mapped = hypervisor.map(offered.peer, std::span(&offered.ref, 1), Access::read_write);
    std::array<std::byte, 16> bytes{};
    GrantCopy one{.direction = GrantCopy::Direction::from_peer,
                  .source = {.domain = offered.peer, .ref = offered.ref, .offset = 0, .length = bytes.size()},
                  .local = bytes.data()};
    Status copied = hypervisor.copy(std::span(&one, 1));
    if (copied && one.status != GrantStatus::okay) copied = host_fault(static_cast<int>(one.status), "copy");
    const auto bound = hypervisor.bind_interdomain(offered.peer, offered.port);
    std::printf("%u:map=%s,copy=%s,bind=%s ", offered.peer.raw,
                word(mapped ? Status{} : std::unexpected(mapped.error())).c_str(), word(copied).c_str(),
                word(bound ? Status{} : std::unexpected(bound.error())).c_str());
}

}  // namespace

int main(int count, char** arguments) {
    const bool offers = count > 2 && std::strcmp(arguments[1], "offer") == 0;
    const bool takes = count > 2 && std::strcmp(arguments[1], "take") == 0;
    if (!offers && !takes) return std::fputs("usage: lab_reach offer DOMID... | take DOMID:REF:PORT...\n", stderr), 2;
    const auto hypervisor = open_hypervisor(find_hypervisor());
    if (!hypervisor) return std::fprintf(stderr, "%s\n", hypervisor.error().message().c_str()), 1;
    const std::span rest(arguments + 2, arguments + count);
    if (offers) return offer(**hypervisor, rest);
    for (const char* one : rest) take(**hypervisor, parsed(one));
    std::puts("");
    return 0;
}
