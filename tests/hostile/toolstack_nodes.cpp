// The toolstack against domains that rewrite everything they can: what it believes is only its own copy.
#include <atomic>
#include <catch2/catch.hpp>
#include <random>
#include <thread>

#include "domains/toolstack/devices.h"
#include "domains/toolstack/toolstack.h"
#include "domains/toolstack/tree.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::toolstack;
using caisson::test::LocalXen;
using caisson::test::need;

namespace {

constexpr std::chrono::milliseconds patience{50};

struct Attached {
    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain(), victim = xen.domain();
    Store dom0 = need(Store::open(xen.directory() + "/dom0/xenstored"));
    Store guest = need(Store::open(front.xenstored)), driver = need(Store::open(back.xenstored));
    DeviceLink link{.device_class = "vif", .id = DeviceId{0}, .frontend = front.id, .backend = back.id};
    DomainConfig config;

    Attached() {
        config.name = "guest";
        config.uuid = "4c6f6361-6c20-4879-8065-727669736f72";
        Vif vif;
        vif.mac = "00:16:3e:00:00:01";
        need(write_tree(dom0, domain_tree(config, front.id)));
        need(write_tree(dom0, vif_tree(vif, front.id, back.id)));
        vif.mac = "00:16:3e:00:00:02";
        need(write_tree(dom0, vif_tree(vif, victim.id, back.id)));
    }
    void gone() {
        CHECK_FALSE(need(dom0.read(frontend_path(link))));
        CHECK_FALSE(need(dom0.read(backend_path(link))));
        CHECK_FALSE(need(dom0.read(trusted_path(link))));
        // The neighbour's device is as it was.
        const DeviceLink other{.device_class = "vif", .id = DeviceId{0}, .frontend = victim.id, .backend = back.id};
        CHECK(need(dom0.read(backend_path(other) + "/mac")) == "00:16:3e:00:00:02");
        CHECK(need(dom0.read(frontend_path(other) + "/state")) == "1");
    }
};

}  // namespace

TEST_CASE("xsa_175_a_guest_that_points_its_device_elsewhere_is_detached_from_where_it_was") {
    Attached world;
    const std::string front = frontend_path(world.link);
    const DeviceLink other{
        .device_class = "vif", .id = DeviceId{0}, .frontend = world.victim.id, .backend = world.back.id};
    REQUIRE(world.guest.remove(front + "/backend"));
    REQUIRE(world.guest.write(front + "/backend", backend_path(other)));
    REQUIRE(world.guest.write(front + "/backend-id", std::to_string(world.victim.id.raw)));
    REQUIRE(world.guest.write(front + "/state", "not a state"));
    const auto devices = need(devices_of(world.dom0, world.front.id));
    REQUIRE(devices.size() == 1);
    CHECK(devices[0] == world.link);
    CHECK(need(states(world.dom0, world.link)).frontend == XenbusState::unknown);
    CHECK(remove_domain(world.dom0, world.front.id, world.config.uuid, patience));
    world.gone();
}

TEST_CASE("xsa_175_a_guest_that_deletes_its_frontend_directory_is_detached_all_the_same") {
    Attached world;
    REQUIRE(world.guest.remove(frontend_path(world.link)));
    CHECK(need(devices_of(world.dom0, world.front.id)).size() == 1);
    CHECK(remove_domain(world.dom0, world.front.id, world.config.uuid, patience));
    world.gone();
}

TEST_CASE("xsa_178_a_backend_that_fills_its_directory_with_lies_changes_nothing_for_the_toolstack") {
    Attached world;
    std::mt19937 random(178);
    const std::string back = backend_path(world.link);
    for (const char* key :
         {"frontend", "frontend-id", "online", "state", "mac", "handle", "type", "params", "script"}) {
        std::string value(1 + random() % 1024, '\0');
        for (char& c : value) c = static_cast<char>(random());
        (void)world.driver.write(back + "/" + key, value);
    }
    REQUIRE(world.driver.write(back + "/frontend", "/local/domain/" + std::to_string(world.victim.id.raw)));
    const auto devices = need(devices_of(world.dom0, world.front.id));
    REQUIRE(devices.size() == 1);
    CHECK(devices[0] == world.link);
    CHECK(need(states(world.dom0, world.link)).backend == XenbusState::unknown);
    CHECK(remove_domain(world.dom0, world.front.id, world.config.uuid, patience));
    world.gone();
}

TEST_CASE("xsa_178_a_backend_that_deletes_its_directory_or_takes_its_rights_away_is_detached_all_the_same") {
    Attached world;
    SECTION("deleted") { REQUIRE(world.driver.remove(backend_path(world.link))); }
    SECTION("closed to everyone") {
        REQUIRE(world.driver.set_permissions(backend_path(world.link), {{.domain = world.back.id}}));
        REQUIRE(world.driver.set_permissions(backend_path(world.link) + "/state", {{.domain = world.back.id}}));
    }
    CHECK(remove_domain(world.dom0, world.front.id, world.config.uuid, patience));
    world.gone();
}

TEST_CASE("xsa_206_a_backend_that_never_stops_writing_cannot_keep_a_device_from_being_removed") {
    Attached world;
    std::atomic<bool> stop{false};
    std::atomic<unsigned> writes{0};
    std::thread writer([&] {
        Store own = need(Store::open(world.back.xenstored));
        while (!stop) {
            (void)own.write(backend_path(world.link) + "/state", "4");
            ++writes;
        }
    });
    while (writes < 5) std::this_thread::yield();
    CHECK(remove_domain(world.dom0, world.front.id, world.config.uuid, patience));
    CHECK(need(devices_of(world.dom0, world.front.id)).empty());
    stop = true;
    writer.join();
}

TEST_CASE("A device that only a guest claims to have does not exist") {
    Attached world;
    REQUIRE_FALSE(world.guest.write("/libxl/" + std::to_string(world.front.id.raw) + "/device/vif/7/backend",
                                    "/local/domain/0/x"));
    REQUIRE_FALSE(
        world.guest.write(domain_path(world.front.id) + "/device/vif/7/backend", "/local/domain/0/backend/vif/0/0"));
    REQUIRE(world.guest.write(domain_path(world.front.id) + "/data/device/vif/7", "x"));
    CHECK(need(devices_of(world.dom0, world.front.id)).size() == 1);
}

TEST_CASE("Names come from the toolstack's records, so a domain cannot call itself another") {
    Attached world;
    CHECK_FALSE(world.guest.write(domain_path(world.front.id) + "/name", "sys-net"));
    auto toolstack = need(Toolstack::open(State{.folder = world.xen.directory()}));
    const auto found = toolstack.find("sys-net");
    REQUIRE_FALSE(found);
    CHECK(found.error().err == ESRCH);
    CHECK(need(toolstack.list()).size() == 4);
    CHECK_FALSE(toolstack.destroy(need(toolstack.find("0"))));
}
