// A guest made of bytes against the real backend worker: they become slots, indices, page contents, packets from the
// host, kills and restarts. Whatever they say, the worker survives and keeps its promises.
#include <cstdlib>
#include <vector>

#include "tests/fuzz/input.h"
#include "tests/support/net_backend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

struct Play {
    Play(Input& bytes, BackendOptions options, bool direct)
        : input(bytes), memory(direct), backend(memory, options), pages(memory.share(24, Access::read_write)) {}

    // Mostly a page of ours, sometimes anything.
    std::uint32_t ref() {
        const std::uint8_t choice = input.byte();
        return choice < 250 ? pages.refs[choice % pages.refs.size()] : input.value<std::uint32_t>();
    }
    void add_tx() {
        const std::uint8_t shape = input.byte();
        if (shape < 60) return backend.queue().tx.add(input.value<net::TxRequest>());
        // Slots that look like a packet's: what random bytes seldom are.
        const auto size = static_cast<std::uint16_t>(input.byte() * (shape % 4 == 0 ? 257 : 17));
        backend.queue().tx.add({.gref = ref(),
                                .offset = static_cast<std::uint16_t>(shape % 3 == 0 ? input.byte() * 16 : 0),
                                .flags = static_cast<std::uint16_t>(input.byte() & 15),
                                .id = input.byte(),
                                .size = size});
    }
    void step() {
        auto& queue = backend.queue();
        switch (input.byte() % 14) {
            case 0:
            case 1:
            case 2: return add_tx();
            case 3: return queue.tx.show();
            case 4: return backend.post(ref(), input.byte());
            case 5: return queue.rx.show();
            case 6: return backend.turns(1);
            case 7: {
                std::vector<std::byte> packet(input.value<std::uint16_t>() % 9000 + 1);
                for (std::size_t i = 0; i < packet.size() && i < 80; ++i) packet[i] = std::byte{input.byte()};
                const auto virtio = input.value<net::VirtioHeader>();
                (void)backend.host_sends(packet, virtio);
                return;
            }
            case 8: {
                const std::byte content[] = {std::byte{input.byte()}, std::byte{input.byte()}};
                (void)pages.memory.copy_in(input.value<std::uint16_t>() % pages.memory.size() / 2, content);
                return;
            }
            case 9: return queue.tx.producer(input.value<std::uint32_t>());
            case 10: return queue.rx.response_event(input.value<std::uint32_t>());
            case 11:
                if (backend.control) backend.control->add(input.value<net::ControlRequest>()), backend.control->show();
                return;
            case 12:
                if (backend.broken() || !backend.worker) return;
                backend.worker.reset();  // its memory is given back; journal and rings stay as they are
                if (input.byte() % 4 == 0)
                    std::memcpy(backend.journal.data(), std::array{input.value<std::uint64_t>()}.data(), 8);
                return backend.start(true);
            default: {  // a correct Ethernet header for what follows
                const auto packet = ethernet(64, backend.options.mac, net::Mac{{0x33, 0x33}}, 0x0800);
                (void)pages.page(input.byte() % pages.refs.size()).copy_in(0, packet);
            }
        }
    }

    Input& input;
    LentMemory memory;
    BackendAlone backend;
    GuestMemory::Pages pages;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const std::uint8_t options = input.byte();
    Play play(input,
              {.queues = 1u + (options & 1u),
               .offloads = (options & 2) != 0 ? net::Offloads{} : net::Offloads{true, true, true, true, true},
               .control_ring = (options & 4) != 0,
               .multicast_control = (options & 8) != 0,
               .enforce_mac = (options & 16) != 0},
              (options & 32) == 0);
    play.backend.turns(1);  // a loop that never turned has not enabled its io_uring yet, and holds 256 entries at most
    for (unsigned steps = 0; steps < 2000 && !input.empty(); ++steps) play.step();
    play.backend.turns(3);
    // One fault at most is told, and a broken ring is not answered any more.
    if (play.backend.faults.size() > 1 && play.backend.worker) std::abort();
    play.backend.worker.reset();
    if (play.memory.hypervisor.mapped != 0) std::abort();
    return 0;
}
