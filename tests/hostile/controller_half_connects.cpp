// Connects that get half way: what was bound before the error is given back, for the guest decides how often.
#include <catch2/catch.hpp>

#include "ring/endpoint.h"
#include "tests/support/block_backend_world.h"

using namespace caisson;
using namespace caisson::test;

namespace {

struct NoWorkers final : EndpointHost {
    void attach(Handover) override {}
    void detach() override {}
    void update(std::vector<std::byte>) override {}
    void timer(std::optional<std::chrono::milliseconds>) override {}
};

}  // namespace

TEST_CASE("a guest with one good queue and one bad one, again and again, uses up no event channels of its backend") {
    BlockBackendWorld world;
    NoWorkers host;
    Endpoint endpoint(world.address, std::move(world.control), *world.back.hypervisor, world.back_store, host,
                      world.log, {.interval = {}});
    const auto before = world.xen.info(world.back.id);
    for (int i = 0; i < 20; ++i) {
        world.forget();
        world.say("state", "1");
        endpoint.look();
        REQUIRE(world.published("state") == "2");
        world.say("multi-queue-num-queues", "2");
        auto good = world.queue("queue-0/", 1, false);
        world.say("state", "4");
        endpoint.look();
        REQUIRE(world.published("state") == "5");
        CHECK(world.xen.info(world.back.id).ports == before.ports);
        world.front.hypervisor->close(std::move(good.channel));
        world.say("state", "6");
        endpoint.look();
        REQUIRE(world.published("state") == "6");
    }
    const auto after = world.xen.info(world.back.id);
    CHECK(after.ports == before.ports);
    CHECK(after.mappings == before.mappings);
}
