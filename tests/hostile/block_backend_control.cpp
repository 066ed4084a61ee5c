// The controller's half of a disk and a worker of it, over a real local hypervisor and its xenstored: what is
// published, what of a frontend's keys is believed, and that ten thousand connects leave nothing behind.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "backends/block/block.h"
#include "backends/block/control.h"
#include "backends/block/worker.h"
#include "tests/support/block_backend_alone.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::test;
namespace op = block::operation;

namespace {

std::size_t descriptors() {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

std::size_t resident() {
    std::size_t all = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> all >> pages;
    return pages * page_size;
}

// A driver domain with one disk, and a guest that writes keys by hand.
struct World {
    explicit World(const std::string& params = "memory:1M") {
        own.write("params", params).value();
        own.write("mode", std::string_view("w")).value();
        own.write("frontend-id", 2u).value();
        need(front_store.make_directory(frontend_path));
        need(front_store.set_permissions(frontend_path, {{.domain = front.id}, {.domain = back.id, .read = true}}));
    }
    ControlContext context() {
        return {.hypervisor = *back.hypervisor, .own = own, .peer = peer, .address = address, .log = log};
    }
    Status offer() {
        auto lent = context();
        return control->offer(lent);
    }
    Result<Handover> connect() {
        auto lent = context();
        return control->connect(lent);
    }
    void disconnect() {
        auto lent = context();
        control->disconnect(lent);
    }
    void say(const std::string& key, const std::string& value) {
        need(front_store.write(frontend_path + "/" + key, value));
    }
    void forget() {
        need(front_store.remove(frontend_path));
        need(front_store.make_directory(frontend_path));
        need(front_store.set_permissions(frontend_path, {{.domain = front.id}, {.domain = back.id, .read = true}}));
    }
    std::string published(std::string_view key) { return need(own.text(key)).value_or(""); }

    // The guest's side of one queue, under `prefix`.
    struct Queue {
        SharedPages pages;
        EventChannel channel;
        BlockRing<block::Native> ring;
    };
    Queue queue(const std::string& prefix, unsigned pages, bool numbered) {
        auto shared = need(front.hypervisor->share(back.id, pages, Access::read_write));
        auto channel = need(front.hypervisor->allocate_unbound(back.id));
        for (unsigned i = 0; i < pages; ++i)
            say(prefix + "ring-ref" + (numbered ? std::to_string(i) : ""), std::to_string(shared.refs()[i].raw));
        say(prefix + "event-channel", std::to_string(channel.port().raw));
        const SharedSpan memory = shared.memory();
        return {std::move(shared), std::move(channel), BlockRing<block::Native>(memory)};
    }
    // As the controller's process would: a worker with a restricted hypervisor of its own.
    struct Serving {
        std::unique_ptr<Hypervisor> hypervisor;
        std::vector<block::backend::QueueHead> journal;
        std::unique_ptr<DeviceWorker> worker;
    };
    Serving serve(const Handover& handover) {
        Serving out;
        out.hypervisor = need(local::open_restricted(need(back.hypervisor->restrict_to(std::span(&front.id, 1)))));
        out.journal.resize(handover.journal_bytes / sizeof(block::backend::QueueHead) + 1);
        auto reader = need(handover.reader());
        out.worker = need(block::backend_half().serve(
            {.loop = *loop,
             .hypervisor = *out.hypervisor,
             .address = address,
             .journal = std::as_writable_bytes(std::span(out.journal)),
             .successor = false,
             .stats = stats,
             .log = log,
             .broken = [this](const Error& error) { faults.push_back(error); },
             .publish = [this](std::string_view key, std::string_view value) { need(own.write(key, value)); },
             .group = group},
            reader));
        return out;
    }
    void turns(unsigned count = 3) {
        for (unsigned i = 0; i < count; ++i) (void)loop->turn({});
    }

    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain();
    Store back_store = need(Store::open(back.xenstored)), front_store = need(Store::open(front.xenstored));
    const std::string frontend_path = "/local/domain/2/device/vbd/51712";
    Directory own{back_store, "/local/domain/1/backend/vbd/2/51712"}, peer{back_store, frontend_path};
    DeviceAddress address{.device_class = "vbd",
                          .role = Role::backend,
                          .frontend = DomainId(2),
                          .backend = DomainId(1),
                          .id = DeviceId(51712)};
    Log log{"vbd under test"};
    std::unique_ptr<DeviceControl> control = block::backend_half().control();
    std::unique_ptr<Loop> loop = need(Loop::make());
    DeviceStats stats;
    std::shared_ptr<void> group;
    std::vector<Error> faults;
};

}  // namespace

TEST_CASE("a disk says what it can before the frontend connects, and what it is when it does") {
    World world;
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
        World world;
        REQUIRE(world.offer());
        std::vector<World::Queue> queues;
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
        for (World::Queue& queue : queues) {
            queue.ring.add(block_request(op::write, 1, 0, {whole_page(data.refs()[0].raw)}));
            queue.ring.show();
        }
        world.turns();
        for (World::Queue& queue : queues) {
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
    World world;
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
    const std::string path = "/tmp/caisson-test-resize-" + std::to_string(::getpid());
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::ftruncate(file.get(), 1 << 20) == 0);
    World world(path);
    REQUIRE(world.offer());
    auto queue = world.queue("", 1, false);
    const auto handover = world.connect();
    REQUIRE(handover);
    auto serving = world.serve(*handover);
    REQUIRE(::ftruncate(file.get(), 4 << 20) == 0);
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
    ::unlink(path.c_str());
}

TEST_CASE("xsa_371 a guest that ends its grants or dies under load leaves the worker standing and nothing mapped") {
    for (const bool persistent : {false, true}) {
        World world;
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
    World world;
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
            before = descriptors(), memory_before = resident();
            back = world.xen.info(world.back.id), front = world.xen.info(world.front.id);
        }
        if (i == 9999) after = descriptors(), memory_after = resident();
    }
    CHECK(answered == 2500);
    CHECK(after == before);
    CHECK(memory_after <= memory_before + (64 << 10));
    CHECK(world.xen.info(world.back.id).mappings == back.mappings);
    CHECK(world.xen.info(world.back.id).ports == back.ports);
    CHECK(world.xen.info(world.front.id).ports == front.ports);
    CHECK(world.xen.info(world.front.id).grants == front.grants);
    CHECK(world.faults.empty());
}
