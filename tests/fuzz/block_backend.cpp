// A guest made of bytes against the real block backend worker: they become slots, indices, segments, grants that end,
// answers of the host, kills and restarts. Whatever they say, the worker survives, answers nothing twice, and gives
// everything back.
#include <cstdlib>
#include <map>
#include <vector>

#include "tests/fuzz/input.h"
#include "tests/support/block_backend_alone.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;

namespace {

template <class Abi>
struct Play {
    Play(Input& bytes, const BlockBackendOptions& options)
        : input(bytes), backend(options), pages(backend.hypervisor.lend(24, Access::read_write)) {}

    // Mostly a page of ours, sometimes anything.
    std::uint32_t ref() {
        const std::uint8_t choice = input.byte();
        return choice < 250 ? pages.first + choice % 24 : input.value<std::uint32_t>();
    }
    void add() {
        const std::uint8_t shape = input.byte();
        block::Native::Request request{};
        if (shape < 40) {
            request = input.value<block::Native::Request>();
        } else if (shape < 100) {
            request = block_indirect(shape % 4 ? op::write : op::read, 0, input.byte(), input.byte(), ref());
        } else if (shape < 110) {
            request = block_discard(0, input.byte(), input.byte(), (shape & 1) != 0);
        } else {
            std::vector<block::Segment> segments(shape % 13);
            for (auto& one : segments) {
                const std::uint8_t place = input.byte();
                one = {ref(), static_cast<std::uint8_t>(place & 7), static_cast<std::uint8_t>(place >> 4), 0};
            }
            request = block_request(input.byte() % 5, 0, input.byte(), segments);
        }
        request.id = asked++;
        if constexpr (std::is_same_v<Abi, block::Narrow>)
            backend.ring().add(narrow(request));
        else
            backend.ring().add(request);
    }
    void take() {
        while (const auto answer = backend.ring().take()) {
            std::uint64_t id = 0;
            if constexpr (std::is_same_v<Abi, block::Narrow>)
                id = answer->id.value();
            else
                id = answer->id;
            if (manners && ++answers[id] > 1) std::abort();
        }
    }
    void step() {
        switch (input.byte() % 12) {
            case 0:
            case 1:
            case 2:
                // With manners: never more than the ring has room for.
                if (!manners || backend.ring().produced() - backend.ring().taken() < backend.ring().slots()) add();
                return;
            case 3: return backend.ring().show();
            case 4: return backend.turns(1);
            case 5: return take();
            case 6: {  // segments, as a table or as nonsense
                const block::Segment one{ref(), static_cast<std::uint8_t>(input.byte() & 7),
                                         static_cast<std::uint8_t>(input.byte() & 15), 0};
                (void)pages.memory.copy_in(input.value<std::uint16_t>() % (24 * page_size / 8 - 1) * 8,
                                           std::as_bytes(std::span(&one, 1)));
                return;
            }
            case 7: manners = false; return backend.ring().producer(input.value<std::uint32_t>());
            case 8: {
                if (backend.broken() || !backend.worker) return;
                backend.worker.reset();  // its memory is given back; journal and rings stay as they are
                if (input.byte() % 4 == 0) {
                    manners = false;
                    backend.journal[input.value<std::uint16_t>() % backend.journal.size()] = std::byte{input.byte()};
                }
                return backend.start(true);
            }
            case 9:
                if (backend.worker && !backend.disk.pending.empty())
                    backend.disk.finish(input.byte() % backend.disk.pending.size(), input.byte() % 8 == 0 ? EIO : 0);
                return;
            case 10: {
                const std::uint64_t sectors = input.byte() % 128;  // never beyond what the scripted disk has
                if (backend.worker) (void)backend.worker->update(std::as_bytes(std::span(&sectors, 1)));
                return;
            }
            default: return backend.ring().response_event(input.value<std::uint32_t>());
        }
    }
    void run() {
        backend.turns(1);
        for (unsigned steps = 0; steps < 2000 && !input.empty(); ++steps) step();
        backend.turns(3);
        if (backend.worker) backend.disk.finish_all();
        backend.turns(3);
        take();
        if (backend.faults.size() > 1 && backend.worker) std::abort();
        backend.worker.reset();
        if (backend.hypervisor.mapped != 0) std::abort();
    }

    Input& input;
    BlockBackendAlone<Abi> backend;
    LendingHypervisor::Grant pages;
    std::uint64_t asked = 0;
    std::map<std::uint64_t, unsigned> answers;
    bool manners = true;  // so far the frontend and the journal kept to the protocol: then each answer comes once
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const std::uint8_t bits = input.byte();
    const BlockBackendOptions options{.scripted = true,
                                      .ring_pages = (bits & 1) != 0 ? 2u : 1u,
                                      .direct_view = false,
                                      .persistent = (bits & 4) != 0,
                                      .max_persistent = (bits & 8) != 0 ? 4u : 64u,
                                      .sectors = 128,
                                      .sector_size = (bits & 16) != 0 ? 4096u : 512u,
                                      .info = (bits & 96) == 96 ? block::disk_info::read_only : 0u};
    if ((bits & 128) != 0)
        Play<block::Narrow>(input, options).run();
    else
        Play<block::Native>(input, options).run();
    return 0;
}
