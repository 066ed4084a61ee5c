// The worker of a disk in a process that is sealed as in a driver domain: what a host needs there is in its policy.
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <thread>

#include "domains/sandbox/sandbox.h"
#include "tests/support/block_backend_world.h"
#include "tests/support/nbdkit.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;

namespace {

// Never returns.
[[noreturn]] void work(BlockBackendWorld& world, const Handover& handover,
                       std::vector<block::backend::QueueHead>& journal, Fd agent) {
    const WorkerPolicy policy = block::backend_half().policy();
    auto loop = need(Loop::make());
    need(loop->restrict_operations(policy.operations));
    auto reader = need(handover.reader());
    need(seal({.policy = policy}));
    auto hypervisor = need(local::open_restricted(std::move(agent)));
    auto worker = need(block::backend_half().serve({.loop = *loop,
                                                    .hypervisor = *hypervisor,
                                                    .address = world.address,
                                                    .journal = std::as_writable_bytes(std::span(journal)),
                                                    .successor = false,
                                                    .stats = world.stats,
                                                    .log = world.log,
                                                    .broken = [](const Error&) { ::_exit(2); },
                                                    .publish = [](std::string_view, std::string_view) {},
                                                    .group = world.group},
                                                   reader));
    loop->run();
    ::_exit(0);
}

}  // namespace

TEST_CASE("a sealed worker does everything that a disk is asked, on every host") {
    const TemporaryFile file(1 << 20);
    Nbdkit server({"memory", "1M"});
    std::vector<std::string> targets{"null:1M", "memory:1M", file.path()};
    std::optional<TemporaryFolder> in_memory;
    if (std::filesystem::exists("/dev/shm"))
        targets.push_back(in_memory.emplace("/dev/shm").file("disk", 1 << 20));
    else
        WARN("skipped: a file in memory: there is no /dev/shm");
    if (server.pid >= 0)
        targets.push_back("nbd:unix:" + server.socket);
    else
        WARN("skipped: the NBD host: nbdkit is not installed");
    for (const std::string& params : targets)
        for (const bool persistent : {false, true}) {
            CAPTURE(params, persistent);
            BlockBackendWorld world(params);
            REQUIRE(world.offer());
            auto queue = world.queue("", 1, false);
            if (persistent) world.say("feature-persistent", "1");
            const auto handover = world.connect();
            REQUIRE(handover);
            Fd agent = need(world.back.hypervisor->restrict_to(std::span(&world.front.id, 1)));
            std::vector<block::backend::QueueHead> journal(handover->journal_bytes / 64 + 1);
            const pid_t child = ::fork();
            if (child == 0) {
                try {
                    work(world, *handover, journal, std::move(agent));
                } catch (...) {
                    ::_exit(3);
                }
            }
            const auto data = need(world.front.hypervisor->share(world.back.id, 65, Access::read_write));
            std::vector<block::Segment> segments;
            for (unsigned i = 1; i < 65; ++i) segments.push_back(whole_page(data.refs()[i].raw));
            (void)data.memory().copy_in(0, std::as_bytes(std::span(segments)));
            const std::uint32_t table = data.refs()[0].raw;
            const std::vector<block::Native::Request> requests{block_request(op::write, 0, 0, {segments[0]}),
                                                               block_request(op::read, 1, 8, {segments[1]}),
                                                               block_request(op::flush_diskcache, 2, 0, {}),
                                                               block_indirect(op::write, 3, 64, 64, table),
                                                               block_indirect(op::read, 4, 64, 64, table),
                                                               block_request(op::write_barrier, 5, 0, {segments[2]}),
                                                               block_discard(6, 64, 64)};
            for (const auto& request : requests) queue.ring.add(request);
            queue.ring.show();
            (void)queue.channel.notify();
            std::vector<int> statuses(requests.size(), -100);
            std::size_t answered = 0;
            int status = 0;
            for (int waited = 0; waited < 20000 && answered < requests.size(); ++waited) {
                while (const auto answer = queue.ring.take()) statuses.at(answer->id) = answer->status, ++answered;
                if (::waitpid(child, &status, WNOHANG) == child) break;
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            CAPTURE(status);
            ::kill(child, SIGKILL);
            ::waitpid(child, nullptr, 0);
            CHECK(statuses == std::vector<int>(requests.size(), block::status::okay));
            world.disconnect();
        }
}
