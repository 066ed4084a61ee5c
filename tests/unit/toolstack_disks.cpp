// Disks of local domains: what is written for them, where their files are, and their coming and going while a guest
// runs.
#include <catch2/catch.hpp>

#include <map>
#include <thread>

#include "domains/toolstack/devices.h"
#include "domains/toolstack/tree.h"
#include "tests/unit/command_world.h"

using namespace caisson;
using namespace caisson::toolstack;
using caisson::test::CommandWorld;
using namespace std::chrono_literals;

namespace {

std::map<std::string, std::string> values(const Tree& tree) {
    std::map<std::string, std::string> all;
    for (const auto& node : tree.nodes) all[node.path] = node.value;
    return all;
}

// What the key becomes, within a time that only a hang exceeds.
std::string awaited(Store& store, const std::string& path, const std::string& wanted) {
    std::string value;
    for (int i = 0; i < 1000 && value != wanted; ++i, std::this_thread::sleep_for(10ms))
        value = store.read(path)->value_or("(absent)");
    return value;
}

// A driver domain with a folder of the machine, in which there is an image, and a guest.
struct StorageWorld : CommandWorld {
    StorageWorld() {
        images = folder() + "/images";
        std::filesystem::create_directory(images);
        std::ofstream(images + "/a.img").flush();
        std::filesystem::resize_file(images + "/a.img", 1 << 20);
        // The domain's root may be nobody in particular here.
        std::filesystem::permissions(folder(), std::filesystem::perms(0711));
        std::filesystem::permissions(images + "/a.img", std::filesystem::perms(0666));
    }
    bool begin() {
        if (!possible()) return false;
        REQUIRE(run("create " + cfg("storage", "driver_domain=1\ncaisson_bind=['" + images + "']\n")).code == 0);
        return true;
    }
    std::string back(const std::string& vdev_number) const {
        const auto all = list();
        std::string storage, guest;
        for (const auto& domain : all) {
            if (domain["name"] == "storage") storage = std::to_string(domain["id"].get<int>());
            if (domain["name"] == "guest") guest = std::to_string(domain["id"].get<int>());
        }
        return "/local/domain/" + storage + "/backend/vbd/" + guest + "/" + vdev_number;
    }
    std::string images;
};

}  // namespace

TEST_CASE("A disk's directories hold libxl's keys") {
    Disk disk = *parse_disk("vdev=xvda,access=ro,backend=s,direct-io-safe,target=/srv/a.img");
    disk.rate_iops = "100,200";
    const auto tree = values(vbd_tree(disk, DomainId{5}, DomainId{2}));
    const std::string back = "/local/domain/2/backend/vbd/5/51712/", front = "/local/domain/5/device/vbd/51712/";
    const std::map<std::string, std::string> wanted{{back + "params", "/srv/a.img"},
                                                    {back + "frontend", "/local/domain/5/device/vbd/51712"},
                                                    {back + "frontend-id", "5"},
                                                    {back + "online", "1"},
                                                    {back + "state", "1"},
                                                    {back + "removable", "0"},
                                                    {back + "bootable", "1"},
                                                    {back + "dev", "xvda"},
                                                    {back + "type", "phy"},
                                                    {back + "mode", "r"},
                                                    {back + "device-type", "disk"},
                                                    {back + "direct-io-safe", "1"},
                                                    {back + "discard-enable", "0"},
                                                    {back + "caisson-rate-iops", "100,200"},
                                                    {front + "backend", "/local/domain/2/backend/vbd/5/51712"},
                                                    {front + "backend-id", "2"},
                                                    {front + "state", "1"},
                                                    {front + "virtual-device", "51712"},
                                                    {front + "device-type", "disk"},
                                                    {front + "trusted", "1"},
                                                    {"/libxl/5/device/vbd/51712/params", "/srv/a.img"}};
    for (const auto& [path, value] : wanted) {
        INFO(path);
        REQUIRE(tree.contains(path));
        CHECK(tree.at(path) == value);
    }
    CHECK_FALSE(tree.contains(front + "event-channel"));
    CHECK_FALSE(tree.contains(front + "claimed"));
    disk.claimed = true;
    CHECK(values(vbd_tree(disk, DomainId{5}, DomainId{2})).at(front + "claimed") == "1");
}

TEST_CASE("A storage domain serves a file in a folder that it was given, and only there it can write") {
    StorageWorld world;
    if (!world.begin()) return;
    CHECK(world.run("exec storage touch /usr/x").code != 0);
    CHECK(world.run("exec storage sh -c 'echo x >>" + world.images + "/a.img'").code == 0);
    const std::string disks = "disk=['vdev=xvda,backend=storage,target=" + world.images +
                              "/a.img','vdev=xvdb,backend=storage,target=/no/such/file']\n";
    REQUIRE(world.run("create " + world.cfg("guest", disks)).code == 0);
    Store store = *Store::open(world.state().xenstored_socket());
    CHECK(awaited(store, world.back("51712") + "/hotplug-status", "connected") == "connected");
    const std::string back = world.back("51728");
    const auto at = back.find("/backend");
    const std::string error = back.substr(0, at) + "/error" + back.substr(at) + "/error";
    for (int i = 0; i < 1000 && !store.read(error)->has_value(); ++i) std::this_thread::sleep_for(10ms);
    CHECK_THAT(store.read(error)->value_or(""), Catch::Contains("/no/such/file: No such file or directory"));
}

TEST_CASE("A disk is attached to a running domain and detached from it, and leaves nothing behind") {
    StorageWorld world;
    if (!world.begin()) return;
    REQUIRE(world.run("create " + world.cfg("guest", "")).code == 0);
    Store store = *Store::open(world.state().xenstored_socket());
    const std::string back = world.back("51712");
    for (int round = 0; round < 3; ++round) {
        const auto attached =
            world.run("attach guest block vdev=xvda,backend=storage,target=memory:1M rate-iops=1000 sector-size=4096");
        INFO(attached.out);
        REQUIRE(attached.code == 0);
        CHECK(awaited(store, back + "/hotplug-status", "connected") == "connected");
        CHECK(store.read(back + "/caisson-rate-iops")->value_or("") == "1000");
        const auto twice = world.run("attach guest block vdev=d0p0,backend=storage,target=memory:1M");
        CHECK(twice.code == 1);
        CHECK_THAT(twice.out, Catch::Contains("guest has a disk d0p0 already"));
        CHECK(world.run("resize guest xvda").code == 0);
        CHECK(world.run("detach guest block " + std::string(round % 2 == 0 ? "xvda" : "51712 --force")).code == 0);
        CHECK_FALSE(store.read(back)->has_value());
        CHECK(store.list(back.substr(0, back.find("/backend")) + "/backend/vbd")->empty());
    }
    const auto none = world.run("detach guest block xvda");
    CHECK(none.code == 1);
    CHECK_THAT(none.out, Catch::Contains("guest has no disk xvda (it has none)"));
    CHECK(world.run("attach ghost block vdev=xvda,backend=storage,target=memory:1M").code == 3);
    CHECK(world.run("attach guest vif vdev=xvda,backend=storage,target=memory:1M").code == 2);
    CHECK_THAT(world.run("attach guest block vdev=xvda,target=memory:1M").out,
               Catch::Contains("Domain-0 serves no disks"));
}
