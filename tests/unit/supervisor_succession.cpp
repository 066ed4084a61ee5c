// The devices of a driver domain that has died: where they go, what is kept, and what nobody else can make of it.
#include "domains/supervisor/succession.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "domains/toolstack/devices.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::toolstack;
using caisson::supervisor::Clock;
using caisson::supervisor::Succession;
using caisson::test::LocalXen;
using caisson::test::need;
using namespace std::chrono_literals;

namespace {

struct World {
    LocalXen xen;
    LocalXen::Domain old = xen.domain(), fresh = xen.domain(), guest = xen.domain(), other = xen.domain();
    Store dom0 = need(Store::open(xen.directory() + "/dom0/xenstored"));
    Store inside = need(Store::open(guest.xenstored)), driver = need(Store::open(fresh.xenstored));
    DeviceLink vif{.device_class = "vif", .id = DeviceId{0}, .frontend = guest.id, .backend = old.id};
    DeviceLink vbd{.device_class = "vbd", .id = DeviceId{51712}, .frontend = guest.id, .backend = old.id};
    Log log{"test"};
    Succession succession{dom0, log, 1s};
    Clock::time_point now{1h};

    World() {
        DomainConfig config;
        for (const auto& [name, domain] :
             {std::pair{"old", &old}, {"fresh", &fresh}, {"guest", &guest}, {"other", &other}}) {
            config.name = name;
            config.uuid = std::string("00000000-0000-4000-8000-00000000000") + std::to_string(domain->id.raw);
            need(write_tree(dom0, domain_tree(config, domain->id)));
        }
        Vif interface;
        interface.mac = "00:16:3e:00:00:01";
        interface.bridge = "br0";
        need(write_tree(dom0, vif_tree(interface, guest.id, old.id)));
        Disk disk = need(parse_disk("vdev=xvda,access=rw,backend=old,target=/srv/a.img"));
        need(write_tree(dom0, vbd_tree(disk, guest.id, old.id)));
    }
    void kill_old() {
        need(dom0.remove(domain_path(old.id)));
        succession.inherit(old.id);
    }
    void look(Clock::duration time) { succession.look(fresh.id, now += time); }
    std::string read(Store& store, const std::string& path) { return need(store.read(path)).value_or("(absent)"); }
    DeviceLink moved(DeviceLink link) const {
        link.backend = fresh.id;
        return link;
    }
};

// What a frontend and a backend of the guest's find.
void is_served_by_the_fresh_one(World& world, const DeviceLink& was, const std::string& key, const std::string& value) {
    const DeviceLink link = world.moved(was);
    CHECK(world.read(world.inside, frontend_path(link) + "/backend") == backend_path(link));
    CHECK(world.read(world.inside, frontend_path(link) + "/backend-id") == std::to_string(world.fresh.id.raw));
    CHECK(world.read(world.inside, frontend_path(link) + "/state") == "1");
    CHECK(world.read(world.driver, frontend_path(link) + "/state") == "1");
    CHECK(world.read(world.driver, backend_path(link) + "/frontend") == frontend_path(link));
    CHECK(world.read(world.driver, backend_path(link) + "/state") == "1");
    CHECK(world.read(world.driver, backend_path(link) + "/" + key) == value);
    CHECK(world.driver.write(backend_path(link) + "/state", "2"));
    CHECK(world.inside.write(frontend_path(link) + "/state", "4"));
    CHECK_FALSE(world.inside.write(frontend_path(link) + "/trusted", "1"));  // XSA-57
    CHECK_FALSE(world.inside.write(backend_path(link) + "/state", "4"));
    CHECK(need(devices_of(world.dom0, world.guest.id)).size() == 2);
}

}  // namespace

TEST_CASE("A frontend that follows is given the successor as soon as its backend is dead, and no earlier") {
    World world;
    for (const auto& link : {world.vif, world.vbd})
        need(world.inside.write(frontend_path(link) + "/caisson-follows", "1"));
    world.succession.inherit(world.old.id);
    world.look(0s);
    CHECK(need(served_by(world.dom0, world.old.id)).size() == 2);
    world.kill_old();
    world.look(0s);
    world.look(0s);
    CHECK(world.succession.complete());
    CHECK(need(served_by(world.dom0, world.old.id)).empty());
    is_served_by_the_fresh_one(world, world.vif, "mac", "00:16:3e:00:00:01");
    CHECK(world.read(world.inside, frontend_path(world.vif) + "/mac") == "00:16:3e:00:00:01");
    is_served_by_the_fresh_one(world, world.vbd, "params", "/srv/a.img");
    CHECK(world.read(world.inside, frontend_path(world.vbd) + "/device-type") == "disk");
}

TEST_CASE("A stock frontend's device goes, comes back after a while, the interface first, with what it had") {
    World world;
    world.kill_old();
    world.look(0s);
    CHECK(world.read(world.inside, frontend_path(world.vif)) == "(absent)");
    CHECK(world.read(world.inside, frontend_path(world.vbd) + "/state") == "1");  // its turn comes
    world.look(900ms);
    CHECK(world.read(world.inside, frontend_path(world.vif)) == "(absent)");
    world.look(100ms);
    const DeviceLink vif = world.moved(world.vif);
    CHECK(world.read(world.inside, frontend_path(vif) + "/mac") == "00:16:3e:00:00:01");
    need(world.driver.write(backend_path(vif) + "/state", "2"));
    need(world.inside.write(frontend_path(vif) + "/state", "4"));
    world.look(100ms);  // it is taken up: now the disk
    world.look(100ms);
    CHECK(world.read(world.inside, frontend_path(world.vbd)) == "(absent)");
    world.look(1s);
    is_served_by_the_fresh_one(world, world.vbd, "params", "/srv/a.img");
    CHECK(world.read(world.inside, frontend_path(world.vbd) + "/virtual-device") == "51712");
    world.look(100ms);
    CHECK(world.succession.complete());
}

TEST_CASE("A guest's kernel that does not notice is given more time, and given up in the end") {
    World world;
    need(world.dom0.remove(trusted_path(world.vbd)));
    world.kill_old();
    world.look(0s);
    const DeviceLink vif = world.moved(world.vif);
    unsigned backs = 0;
    bool was = false;
    for (int step = 0; step < 20'000 && !world.succession.complete(); ++step) {
        world.look(100ms);
        const bool there = world.read(world.inside, frontend_path(vif)) != "(absent)";
        backs += there && !was ? 1 : 0;
        was = there;
        if (there) need(world.driver.write(backend_path(vif) + "/state", "2"));
    }
    CHECK(world.succession.complete());
    CHECK(backs == 5);
}

TEST_CASE("A guest's kernel that closes its old device late, in the new one's directory, gets it once more") {
    World world;
    need(world.dom0.remove(trusted_path(world.vbd)));
    world.kill_old();
    world.look(0s);
    world.look(1s);
    const DeviceLink vif = world.moved(world.vif);
    need(world.driver.write(backend_path(vif) + "/state", "2"));
    need(world.inside.write(frontend_path(vif) + "/state", "6"));
    world.look(9s);
    CHECK_FALSE(world.succession.complete());
    world.look(2s);
    CHECK(world.read(world.inside, frontend_path(vif)) == "(absent)");
    world.look(2s);
    CHECK(world.read(world.inside, frontend_path(vif) + "/state") == "1");
    need(world.driver.write(backend_path(vif) + "/state", "2"));
    need(world.inside.write(frontend_path(vif) + "/state", "4"));
    world.look(100ms);
    CHECK(world.succession.complete());
}

TEST_CASE("A successor that dies, too, leaves everything to the next one") {
    World world;
    world.kill_old();
    world.look(0s);
    world.look(1s);  // the vif is back, at the fresh one
    need(world.dom0.remove(domain_path(world.fresh.id)));
    world.succession.inherit(world.fresh.id);
    for (int step = 0; step < 200 && !world.succession.complete(); ++step) {
        world.succession.look(world.other.id, world.now += 500ms);
        for (auto link : {world.vif, world.vbd}) {
            link.backend = world.other.id;
            if (world.read(world.inside, frontend_path(link) + "/backend-id") != std::to_string(world.other.id.raw))
                continue;
            need(world.dom0.write(backend_path(link) + "/state", "2"));
            need(world.inside.write(frontend_path(link) + "/state", "4"));
        }
    }
    CHECK(world.succession.complete());
    CHECK(need(served_by(world.dom0, world.other.id)).size() == 2);
}

TEST_CASE("xsa_175_where_a_guest_says_that_its_device_is_nobody_looks_when_the_device_moves") {
    World world;
    const std::string front = frontend_path(world.vif);
    need(world.inside.write(front + "/caisson-follows", "1"));
    need(world.inside.write(frontend_path(world.vbd) + "/caisson-follows", "1"));
    need(world.inside.write(front + "/backend", domain_path(world.other.id) + "/backend/vif/9/9"));
    need(world.inside.write(front + "/backend-id", std::to_string(world.other.id.raw)));
    need(world.inside.write(front + "/mac", "00:16:3e:66:66:66"));
    need(world.inside.write(front + "/script", "/bin/sh"));
    for (int i = 0; i < 200; ++i) need(world.inside.write(front + "/junk/" + std::to_string(i), "x"));
    world.kill_old();
    world.look(0s);
    world.look(0s);
    CHECK(world.succession.complete());
    const std::string back = backend_path(world.moved(world.vif));
    CHECK(world.read(world.driver, back + "/mac") == "00:16:3e:00:00:01");
    CHECK(world.read(world.driver, back + "/script") == "(absent)");
    CHECK(world.read(world.inside, front + "/script") == "(absent)");
    CHECK(world.read(world.inside, front + "/junk") == "(absent)");
    CHECK(world.read(world.dom0, domain_path(world.other.id) + "/backend") == "(absent)");
}

TEST_CASE("A guest that writes into its device all the time keeps nobody else's from moving") {
    World world;
    Vif interface;
    interface.mac = "00:16:3e:00:00:02";
    need(write_tree(world.dom0, vif_tree(interface, world.other.id, world.old.id)));
    const DeviceLink hostile{
        .device_class = "vif", .id = DeviceId{0}, .frontend = world.other.id, .backend = world.old.id};
    for (const auto& link : {world.vif, world.vbd, hostile})
        need(world.dom0.write(frontend_path(link) + "/caisson-follows", "1"));
    std::atomic<bool> ends = false;
    std::thread writer([&] {
        Store store = need(Store::open(world.other.xenstored));
        while (!ends) (void)store.write(frontend_path(hostile) + "/state", "1");
    });
    world.kill_old();
    for (int step = 0; step < 8; ++step) world.look(1s);
    ends = true;
    writer.join();
    CHECK(need(served_by(world.dom0, world.fresh.id)).size() >= 2);
    is_served_by_the_fresh_one(world, world.vbd, "params", "/srv/a.img");
    for (int step = 0; step < 8; ++step) world.look(1s);
    CHECK(world.succession.complete());
}

TEST_CASE("A device of a class that cannot be moved stays where it was, and holds nothing up") {
    World world;
    const std::string trusted = libxl_path(world.guest.id) + "/device/vkbd/0";
    need(world.dom0.write(trusted + "/backend", domain_path(world.old.id) + "/backend/vkbd/3/0"));
    need(world.inside.write(frontend_path(world.vif) + "/caisson-follows", "1"));
    need(world.inside.write(frontend_path(world.vbd) + "/caisson-follows", "1"));
    world.kill_old();
    for (int step = 0; step < 3; ++step) world.look(0s);
    CHECK(world.succession.complete());
    CHECK(need(served_by(world.dom0, world.old.id)).size() == 1);
    CHECK(need(served_by(world.dom0, world.fresh.id)).size() == 2);
}

TEST_CASE("A guest that goes while its device is away leaves no stump") {
    World world;
    world.kill_old();
    world.look(0s);
    need(world.dom0.remove(libxl_path(world.guest.id)));
    need(world.dom0.remove(domain_path(world.guest.id)));
    for (int step = 0; step < 50; ++step) world.look(1s);
    CHECK(world.succession.complete());
    CHECK(need(world.dom0.list(domain_path(world.fresh.id) + "/backend")).empty());
    CHECK(world.read(world.dom0, domain_path(world.guest.id)) == "(absent)");
    CHECK(world.read(world.dom0, libxl_path(world.guest.id)) == "(absent)");
}
