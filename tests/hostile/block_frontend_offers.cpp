// A block backend whose xenstore keys lie, that keeps what it was lent, and that shows any state at any moment.
#include <catch2/catch.hpp>

#include "frontends/block/features.h"
#include "tests/support/block_pair.h"

using namespace caisson;
using namespace caisson::test;

namespace {

// The control half in a guest, and the directory that its backend writes.
struct Offered {
    Offered() {
        need(store.make_directory(own.path()));
        need(back_store.make_directory(path()));
        need(back_store.set_permissions(path(), {{.domain = back.id}, {.domain = front.id, .read = true}}));
        for (const auto& [key, value] : BlockNodes{{"state", "4"}, {"sectors", "2048"}, {"feature-persistent", "1"}})
            offer(key, value);
    }
    ~Offered() { disconnect(); }
    std::string path() const { return "/local/domain/" + std::to_string(back.id.raw) + "/backend/vbd/1/51712"; }
    void offer(const std::string& key, const std::string& value) { need(back_store.write(path() + "/" + key, value)); }
    ControlContext context() { return {*front.hypervisor, own, peer, address, log}; }
    Result<Handover> connect() {
        auto lent = context();
        return control->connect(lent);
    }
    void disconnect() {
        auto lent = context();
        control->disconnect(lent);
    }
    std::string said(const std::string& key) { return need(store.read(own.path() + "/" + key)).value_or(""); }
    Result<block::frontend::Features> features() { return block::frontend::read_features(own, peer); }

    LocalXen xen;
    LocalXen::Domain front = xen.domain(), back = xen.domain();
    Store store = need(Store::open(front.xenstored)), back_store = need(Store::open(back.xenstored));
    DeviceAddress address{
        .device_class = "vbd", .role = Role::frontend, .frontend = front.id, .backend = back.id, .id = DeviceId(51712)};
    Directory own{store, "/local/domain/" + std::to_string(front.id.raw) + "/device/vbd/51712"};
    Directory peer{store, path()};
    Log log{"vbd under test"};
    std::unique_ptr<DeviceControl> control = block::make_frontend_control({.queues = 8, .ring_order = 4});
};

}  // namespace

TEST_CASE("What a block backend says of its disk is possible, or it is refused") {
    Offered offered;
    REQUIRE(offered.features());
    for (const auto& [key, values] : std::map<std::string, std::vector<std::string>>{
             {"sectors", {"", "-1", "0", "x", "18446744073709551615", "18446744073709551616", "18014398509481984"}},
             {"sector-size", {"", "-512", "0", "3", "256", "513", "1000", "8192", "2147483648", "4294967296"}},
             {"physical-sector-size", {"0", "3", "256", "1000", "2097152", "2147483648"}},
             {"info", {"", "-1", "x", "4294967296"}},
             {"feature-flush-cache", {"2x", "-1"}},
             {"feature-barrier", {"yes", "-1"}},
             {"feature-discard", {"0x1", "-1"}},
             {"feature-max-indirect-segments", {"-1", "x", "4294967296"}}}) {
        for (const std::string& value : values) {
            INFO(key << " = " << value);
            offered.offer(key, value);
            CHECK(!offered.features());
        }
        if (key == "sectors")
            offered.offer(key, "2048");
        else
            need(offered.back_store.remove(offered.path() + "/" + key));
    }
    offered.offer("feature-max-indirect-segments", "4294967295");
    CHECK(offered.features()->segments == block::max_indirect_segments);
    offered.offer("feature-max-indirect-segments", "1");
    CHECK(offered.features()->segments == block::direct_segments);
    offered.offer("sectors", "18014398509481983");  // 2^54 - 1
    CHECK(offered.features()->geometry.bytes() == (std::uint64_t{1} << 63) - 512);
    offered.offer("sector-size", "4096");
    need(offered.store.write(offered.own.path() + "/caisson-sectors-are-blocks", "1"));
    CHECK(!offered.features());  // in blocks it is too large
    offered.offer("sectors", "2251799813685247");
    CHECK(offered.features()->geometry.bytes() == (std::uint64_t{1} << 63) - 4096);
}

TEST_CASE("Generous transports of a block backend are clamped to ours, impossible ones leave nothing") {
    Offered offered;
    const auto grants = offered.xen.info(offered.front.id).grants;
    for (const auto& [key, value] : BlockNodes{{"multi-queue-max-queues", "0"}, {"max-ring-page-order", "-1"}}) {
        offered.offer(key, value);
        CHECK(!offered.connect());
        CHECK(offered.said("ring-ref").empty());
        CHECK(offered.said("event-channel").empty());
        offered.offer(key, "1");
    }
    offered.offer("multi-queue-max-queues", "4294967295");
    offered.offer("max-ring-page-order", "4294967295");
    REQUIRE(offered.connect());
    CHECK(offered.said("multi-queue-num-queues") == "8");
    CHECK(offered.said("ring-page-order") == "4");
    offered.disconnect();
    offered.control.reset();
    offered.control = block::make_frontend_control({});
    CHECK(offered.xen.info(offered.front.id).grants == grants);
}

TEST_CASE("xsa_396_a block backend that keeps its pages mapped gets nothing of the next connection into them") {
    Offered offered;
    REQUIRE(offered.connect());
    // Its ring, mapped, and never given back.
    const GrantRef ring(*parse_decimal<std::uint32_t>(offered.said("ring-ref")));
    const GrantRef refs[] = {ring};
    auto kept = need(offered.back.hypervisor->map(offered.front.id, refs, Access::read_write));
    offered.disconnect();
    CHECK(offered.front.hypervisor->quarantined_pages() > 0);
    const std::vector<std::byte> noise(page_size, std::byte{0xAA});
    for (int i = 0; i < 5; ++i) {
        REQUIRE(offered.connect());
        CHECK(offered.said("ring-ref") != std::to_string(ring.raw));
        REQUIRE(kept.memory().copy_in(0, noise));
        std::vector<std::byte> seen(page_size);
        const GrantRef fresh[] = {GrantRef(*parse_decimal<std::uint32_t>(offered.said("ring-ref")))};
        auto mapped = need(offered.back.hypervisor->map(offered.front.id, fresh, Access::read_write));
        REQUIRE(mapped.memory().copy_out(0, seen));
        CHECK(seen != noise);
        mapped = {};
        offered.disconnect();
    }
    kept = {};
    offered.front.hypervisor->retry_quarantine();
    CHECK(offered.front.hypervisor->quarantined_pages() == 0);
}

TEST_CASE("xsa_465_a block backend that shows any state at any moment ends nothing, and a good one serves afterwards") {
    for (int first = 0; first <= 8; ++first) {
        for (int second = 0; second <= 8; second += 2) {
            BlockWorld world;
            world.stop_backend();
            BlockSide& front = world.frontend_worker();
            for (const int state : {first, second, 2, first, 4, second, 4}) {
                need(world.dom0().write(world.back_path() + "/state", std::to_string(state)));
                for (int i = 0; i < 20; ++i) world.step();
            }
            need(world.dom0().write(world.back_path() + "/state", "6"));
            REQUIRE(world.until([&] {
                const auto state = need(world.dom0().read(world.front_path() + "/state"));
                return state == "6" || state == "1";
            }));
            need(world.dom0().write(world.back_path() + "/state", "1"));
            world.start_backend();
            front.complaint.reset();
            REQUIRE(world.until([&] { return need(world.dom0().read(world.front_path() + "/state")) == "4"; }));
            CHECK(!front.complaint);
        }
    }
}
