// The controller's half of a disk and a worker of it, over a real local hypervisor and its xenstored: what is
// published, what of a frontend's keys is believed, and that ten thousand connects leave nothing behind.
#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/support/block_backend_world.h"
#include "tests/support/memory.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;

namespace {

std::size_t descriptors() {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

}  // namespace

TEST_CASE("a disk says what it can before the frontend connects, and what it is when it does") {
    BlockBackendWorld world;
    REQUIRE(world.offer());
    for (const char* key :
         {"feature-barrier", "feature-flush-cache", "feature-discard", "feature-persistent", "feature-online-resize"})
        CHECK(world.published(key) == "1");
    CHECK(world.published("feature-max-indirect-segments") == "256");
    CHECK(world.published("max-ring-page-order") == "4");
    CHECK(world.published("multi-queue-max-queues") == "8");
    auto queue = world.queue("", 1, false);
    REQUIRE(world.connect());
    CHECK(world.published("sectors") == "2048");
    CHECK(world.published("sector-size") == "512");
    CHECK(world.published("info") == "0");
    world.disconnect();
}

TEST_CASE("every way in which frontends write their rings is understood, and the disk is used through it") {
    struct Way {
        unsigned queues, pages;
        bool order, numbered;
        const char* protocol;
    };
    for (const Way& way :
         {Way{1, 1, false, false, ""}, Way{1, 1, true, true, "x86_64-abi"}, Way{1, 1, true, false, ""},
          Way{1, 4, true, true, ""}, Way{2, 1, false, false, ""}, Way{8, 16, true, true, "x86_64-abi"}}) {
        BlockBackendWorld world;
        REQUIRE(world.offer());
        std::vector<BlockBackendWorld::Queue> queues;
        if (way.queues > 1) world.say("multi-queue-num-queues", std::to_string(way.queues));
        if (way.order) world.say("ring-page-order", std::to_string(std::countr_zero(way.pages)));
        if (*way.protocol != 0) world.say("protocol", way.protocol);
        for (unsigned n = 0; n < way.queues; ++n)
            queues.push_back(
                world.queue(way.queues > 1 ? "queue-" + std::to_string(n) + "/" : "", way.pages, way.numbered));
        const auto handover = world.connect();
        REQUIRE(handover);
        auto serving = world.serve(*handover);
        auto data = need(world.front.hypervisor->share(world.back.id, 1, Access::read_write));
        for (BlockBackendWorld::Queue& queue : queues) {
            queue.ring.add(block_request(op::write, 1, 0, {whole_page(data.refs()[0].raw)}));
            queue.ring.show();
        }
        world.turns();
        for (BlockBackendWorld::Queue& queue : queues) {
            const auto answer = queue.ring.take();
            REQUIRE(answer);
            CHECK(answer->status == block::status::okay);
        }
        serving.worker.reset();
        world.disconnect();
    }
}

TEST_CASE("keys that no frontend should write end its connect with an error, and nothing is bound") {
    const std::vector<std::pair<std::string, std::string>> lies{{"multi-queue-num-queues", "0"},
                                                                {"multi-queue-num-queues", "9"},
                                                                {"multi-queue-num-queues", "-1"},
                                                                {"ring-page-order", "5"},
                                                                {"ring-page-order", "4294967296"},
                                                                {"ring-page-order", "x"},
                                                                {"protocol", "x86_16-abi"},
                                                                {"feature-persistent", "yes"},
                                                                {"ring-ref", "one"},
                                                                {"ring-ref", "99999999999"},
                                                                {"event-channel", ""},
                                                                {"event-channel", "4000000000"}};
    BlockBackendWorld world;
    REQUIRE(world.offer());
    for (const auto& [key, value] : lies) {
        auto queue = world.queue("", 1, false);
        world.say(key, value);
        CAPTURE(key, value);
        CHECK_FALSE(world.connect());
        world.disconnect();
        world.forget();
    }
    CHECK_FALSE(world.connect());  // and a directory without anything
    world.disconnect();
    CHECK(world.xen.info(world.back.id).mappings == 0);
}

TEST_CASE("a disk that grows is announced after its worker knows: sectors, then state Connected once more") {
    const TemporaryFile file(1 << 20);
    BlockBackendWorld world(file.path());
    REQUIRE(world.offer());
    auto queue = world.queue("", 1, false);
    const auto handover = world.connect();
    REQUIRE(handover);
    auto serving = world.serve(*handover);
    file.resize(4 << 20);
    auto lent = world.context();
    const auto message = world.control->changed(lent);
    REQUIRE(message);
    REQUIRE(*message);
    CHECK(world.published("sectors") == "2048");
    CHECK(world.published("state").empty());
    REQUIRE(serving.worker->update(**message));
    CHECK(world.published("sectors") == "8192");
    const auto second = world.control->changed(lent);
    REQUIRE(second);
    CHECK_FALSE(*second);
    CHECK(world.published("state") == "4");
    const auto third = world.control->changed(lent);  // no new size: nothing to say
    REQUIRE(third);
    CHECK_FALSE(*third);
    serving.worker.reset();
    world.disconnect();
}

TEST_CASE("xsa_258 what a guest wrote at the start of its disk makes no image of it: the file is the disk, as it is") {
    const TemporaryFile file(1 << 20);
    for (const std::string_view magic : {"QFI\xfb", "conectix", "KDMV", "vhdxfile"}) {
        file.write(0, magic);
        BlockBackendWorld world(file.path());
        REQUIRE(world.offer());
        auto queue = world.queue("", 1, false);
        REQUIRE(world.connect());
        CHECK(world.published("sectors") == "2048");
        world.disconnect();
    }
    for (const char* format : {"qcow2:", "vhd:", "qcow:", "vmdk:"}) {
        BlockBackendWorld world(format + file.path());
        CHECK_FALSE(world.offer());
    }
}

TEST_CASE("xsa_371 a guest that ends its grants or dies under load leaves the worker standing and nothing mapped") {
    for (const bool persistent : {false, true}) {
        BlockBackendWorld world;
        REQUIRE(world.offer());
        auto queue = world.queue("", 1, false);
        if (persistent) world.say("feature-persistent", "1");
        const auto handover = world.connect();
        REQUIRE(handover);
        auto serving = world.serve(*handover);
        auto data = need(world.front.hypervisor->share(world.back.id, 4, Access::read_write));
        const auto ref = data.refs()[1].raw;
        queue.ring.add(block_request(op::write, 1, 0, {whole_page(ref)}));
        queue.ring.show();
        world.turns();
        REQUIRE(queue.ring.take()->status == block::status::okay);
        REQUIRE(need(data.end()) == End::ended);
        queue.ring.add(block_request(op::write, 2, 0, {whole_page(ref)}));
        queue.ring.show();
        world.turns();
        CHECK(queue.ring.take()->status == block::status::error);
        world.xen.destroy(world.front);
        queue.ring.add(block_request(op::write, 3, 0, {whole_page(ref)}));
        queue.ring.show();
        world.turns();
        serving.worker.reset();
        serving.hypervisor.reset();
        world.disconnect();
        CHECK(world.xen.info(world.back.id).mappings == 0);
    }
}

TEST_CASE(
    "xsa_350 ten thousand connects and disconnects leave as many descriptors, grants, ports and mappings as before") {
    BlockBackendWorld world;
    REQUIRE(world.offer());
    auto queue = world.queue("", 1, false);
    auto data = need(world.front.hypervisor->share(world.back.id, 1, Access::read_write));
    std::size_t before = 0, after = 0, memory_before = 0, memory_after = 0;
    local::DomainInfo back{}, front{};
    unsigned answered = 0;
    for (unsigned i = 0; i < 10000; ++i) {
        const auto handover = world.connect();
        REQUIRE(handover);
        {
            auto serving = world.serve(*handover);
            if (i % 4 == 0) {
                queue.ring.add(block_request(op::write, i, 0, {whole_page(data.refs()[0].raw)}));
                queue.ring.show();
                world.turns(2);
                answered += queue.ring.take_all().size() == 1;
            }
            serving.worker.reset();
        }
        world.disconnect();
        if (i == 1000) {
            before = descriptors(), memory_before = resident_bytes();
            back = world.xen.info(world.back.id), front = world.xen.info(world.front.id);
        }
        if (i == 9999) after = descriptors(), memory_after = resident_bytes();
    }
    CHECK(answered == 2500);
    CHECK(after == before);
    if (memory_means_something()) CHECK(memory_after <= memory_before + (64 << 10));
    CHECK(world.xen.info(world.back.id).mappings == back.mappings);
    CHECK(world.xen.info(world.back.id).ports == back.ports);
    CHECK(world.xen.info(world.front.id).ports == front.ports);
    CHECK(world.xen.info(world.front.id).grants == front.grants);
    CHECK(world.faults.empty());
}
