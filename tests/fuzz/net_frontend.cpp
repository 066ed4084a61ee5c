// A net frontend's worker against a backend that is the input: bytes into the rings, answers, events, frames from the
// program, deaths. Whatever comes: no crash, no report of the sanitizers, at most one fault a life.
#include <cstdint>
#include <cstdlib>

#include "tests/fuzz/input.h"
#include "tests/support/net_frontend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

void one_action(FrontendAlone& front, Input& in, std::vector<net::TxRequest>& taken) {
    auto& queue = front.queue();
    const std::uint32_t rx_slot = queue.rx.produced() % net::ring_slots;
    switch (in.byte() % 14) {
        case 0: queue.tx.respond({in.word(), static_cast<std::int16_t>(in.word())}); break;
        case 1: queue.rx.respond({in.word(), in.word(), in.word(), static_cast<std::int16_t>(in.word())}); break;
        case 2: queue.tx.response_producer(in.number()); break;
        case 3: queue.rx.response_producer(in.number()); break;
        case 4:  // a well-formed answer
            if (taken.empty()) break;
            queue.tx.respond({taken.back().id, static_cast<std::int16_t>(-(in.byte() % 3))});
            taken.pop_back();
            break;
        case 5: {  // a slot in its place, with flags
            const auto flags = in.byte();
            queue.rx.respond({static_cast<std::uint16_t>(rx_slot), static_cast<std::uint16_t>(in.byte()), flags,
                              static_cast<std::int16_t>(in.word() % 4100)});
            break;
        }
        case 6: {  // an extra in its place
            const std::uint8_t type = in.byte() % 6, flags = in.byte() % 2;
            queue.rx.respond(net::in_rx_slot({type, flags, {in.byte(), in.byte(), in.byte(), in.byte(), 0, 0}}));
            break;
        }
        case 7: {  // the backend writes into a posted page
            const auto buffer = queue.rx.request(in.byte());
            const SharedSpan page = front.hypervisor.page(buffer.gref);
            std::array<std::byte, 64> bytes;
            for (std::byte& byte : bytes) byte = static_cast<std::byte>(in.byte());
            (void)page.copy_in(0, bytes);
            break;
        }
        case 8: {
            std::vector<std::byte> frame(in.word() % 9000, static_cast<std::byte>(in.byte()));
            net::VirtioHeader header{.flags = in.byte(),
                                     .gso_type = in.byte(),
                                     .header_length = in.word(),
                                     .gso_size = in.word(),
                                     .csum_start = in.word(),
                                     .csum_offset = in.word()};
            front.program_sends(frame, header);
            break;
        }
        case 9: queue.tx.request_event(in.number()), queue.rx.request_event(in.number()); break;
        case 10:
            if (front.control) front.control->respond({in.word(), in.word(), in.number(), in.number()});
            break;
        case 11:
            if (!front.control) break;
            if (const auto request = front.control->take())
                front.control->respond({request->id, request->type, in.byte() % 5u, 0});
            break;
        case 12: front.ring_bell(); break;
        case 13:
            while (const auto request = queue.tx.take()) taken.push_back(*request);
            break;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input in(data, size);
    const std::uint8_t kind = in.byte();
    net::frontend::Link link = FrontendAlone::default_link();
    link.queues = 1 + (kind & 1);
    link.receive_hash = (kind & 1) != 0;
    if ((kind & 2) != 0) link.peer = {};
    link.largest = link.peer.largest(1500);
    FrontendAlone front(link);
    std::vector<net::TxRequest> taken;
    for (unsigned actions = 0; !in.empty() && actions < 400; ++actions) {
        one_action(front, in, taken);
        if (actions % 4 == 3) front.turns(1);
    }
    front.turns(3);
    while (front.program_receives()) {
    }
    if (front.faults.size() > 1) std::abort();
    return 0;
}
