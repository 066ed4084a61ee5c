// The tree that the toolstack writes is libxl's: keys, values, permissions.
#include <catch2/catch.hpp>
#include <map>

#include "domains/toolstack/devices.h"
#include "domains/toolstack/tree.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::toolstack;
using caisson::test::LocalXen;
using caisson::test::need;

namespace {

// As xenstore-ls -p shows them: "n0,r5".
std::string text(const std::vector<StorePermission>& permissions) {
    std::string all;
    for (const auto& [domain, read, write] : permissions)
        all += std::string(all.empty() ? "" : ",") +
               (read && write ? "b"
                : read        ? "r"
                : write       ? "w"
                              : "n") +
               std::to_string(domain.raw);
    return all;
}

struct Row {
    std::string value, permissions;
};
std::map<std::string, Row> rows(const Tree& tree) {
    std::map<std::string, Row> all;
    for (const auto& node : tree.nodes) {
        CHECK_FALSE(all.contains(node.path));
        all[node.path] = {node.value, text(node.permissions)};
    }
    return all;
}

#define HAS(tree, path, expected_value, expected_permissions)      \
    do {                                                           \
        INFO(path);                                                \
        REQUIRE((tree).contains(path));                            \
        CHECK((tree)[path].value == (expected_value));             \
        CHECK((tree)[path].permissions == (expected_permissions)); \
    } while (false)

Vif test_vif() {
    return {.id = 1,
            .backend = "sys-net",
            .mac = "00:16:3e:00:00:01",
            .ip = "10.0.0.2",
            .bridge = "br0",
            .script = {},
            .vifname = {},
            .gatewaydev = {},
            .rate_bytes = 25000,
            .rate_usecs = 20000,
            .mtu = 9000,
            .unused = {}};
}

}  // namespace

TEST_CASE("A domain's tree has libxl's nodes with libxl's rights") {
    DomainConfig config;
    config.name = "guest";
    config.uuid = "4c6f6361-6c20-4879-8065-727669736f72";
    config.memory_mib = 64;
    config.vcpus = 2;
    auto tree = rows(domain_tree(config, DomainId{5}));
    HAS(tree, "/local/domain/5", "", "n0,r5");
    HAS(tree, "/local/domain/5/vm", "/vm/" + config.uuid, "n0,r5");
    HAS(tree, "/local/domain/5/name", "guest", "n0,r5");
    HAS(tree, "/local/domain/5/domid", "5", "n0,r5");
    HAS(tree, "/local/domain/5/memory/target", "65536", "n0,r5");
    HAS(tree, "/local/domain/5/memory/static-max", "65536", "n0,r5");
    HAS(tree, "/local/domain/5/cpu/1/availability", "online", "n0,r5");
    HAS(tree, "/local/domain/5/device", "", "n0,r5");
    HAS(tree, "/local/domain/5/device/suspend/event-channel", "", "n5");
    HAS(tree, "/local/domain/5/control", "", "n0,r5");
    HAS(tree, "/local/domain/5/control/shutdown", "", "n5");
    HAS(tree, "/local/domain/5/control/platform-feature-xs_reset_watches", "1", "n0,r5");
    for (const char* own : {"data", "drivers", "feature", "attr", "error"})
        HAS(tree, std::string("/local/domain/5/") + own, "", "n5");
    HAS(tree, "/vm/" + config.uuid + "/name", "guest", "n0,r5");
    HAS(tree, "/vm/" + config.uuid + "/uuid", config.uuid, "n0,r5");
    HAS(tree, "/libxl/5", "", "n0");
    HAS(tree, "/libxl/5/type", "pv", "n0");
    CHECK_FALSE(tree.contains("/local/domain/5/libxl"));
    config.driver_domain = true;
    tree = rows(domain_tree(config, DomainId{5}));
    HAS(tree, "/local/domain/5/libxl", "", "n5");
}

TEST_CASE("A vif's three directories are libxl's") {
    auto tree = rows(vif_tree(test_vif(), DomainId{5}, DomainId{2}));
    const std::string front = "/local/domain/5/device/vif/1", back = "/local/domain/2/backend/vif/5/1";
    HAS(tree, front, "", "n5,r2");
    HAS(tree, front + "/backend", back, "");
    HAS(tree, front + "/backend-id", "2", "n5,r2");
    HAS(tree, front + "/state", "1", "n5,r2");
    HAS(tree, front + "/handle", "1", "n5,r2");
    HAS(tree, front + "/mac", "00:16:3e:00:00:01", "n5,r2");
    HAS(tree, front + "/mtu", "9000", "n2,r5");
    HAS(tree, front + "/trusted", "1", "n2,r5");
    HAS(tree, back, "", "n2,r5");
    HAS(tree, back + "/frontend", front, "");
    HAS(tree, back + "/frontend-id", "5", "");
    HAS(tree, back + "/online", "1", "");
    HAS(tree, back + "/state", "1", "");
    HAS(tree, back + "/mac", "00:16:3e:00:00:01", "");
    HAS(tree, back + "/ip", "10.0.0.2", "");
    HAS(tree, back + "/bridge", "br0", "");
    HAS(tree, back + "/rate", "25000,20000", "");
    HAS(tree, back + "/mtu", "9000", "");
    HAS(tree, back + "/handle", "1", "");
    HAS(tree, back + "/type", "vif", "");
    HAS(tree, "/libxl/5/device/vif/1", "", "n0");
    HAS(tree, "/libxl/5/device/vif/1/backend", back, "");
    HAS(tree, "/libxl/5/device/vif/1/frontend", front, "");
    HAS(tree, "/libxl/5/device/vif/1/ip", "10.0.0.2", "");
    CHECK_FALSE(tree.contains(back + "/script"));
    CHECK_FALSE(tree.contains(back + "/vifname"));
}

TEST_CASE("Console 0 and channels are where Xen's guests look for them") {
    auto tree = rows(console_tree(nullptr, DomainId{5}, DomainId{2}));
    HAS(tree, "/local/domain/5/console/backend", "/local/domain/2/backend/console/5/0", "");
    HAS(tree, "/local/domain/5/console/backend-id", "2", "n5,r2");
    HAS(tree, "/local/domain/5/console/limit", "1048576", "n2,r5");
    HAS(tree, "/local/domain/5/console/type", "xenconsoled", "n2,r5");
    HAS(tree, "/local/domain/5/console/output", "pty", "n2,r5");
    HAS(tree, "/local/domain/5/console/tty", "", "n2,r5");
    HAS(tree, "/local/domain/2/backend/console/5/0/frontend", "/local/domain/5/console", "");
    HAS(tree, "/local/domain/2/backend/console/5/0/protocol", "vt100", "");
    const Channel channel{.id = 1, .backend = "0", .name = "agent", .connection = "socket", .path = "/run/agent"};
    tree = rows(console_tree(&channel, DomainId{5}, DomainId{0}));
    HAS(tree, "/local/domain/5/device/console/1/name", "agent", "n0,r5");
    HAS(tree, "/local/domain/5/device/console/1/state", "1", "n5,r0");
    HAS(tree, "/local/domain/0/backend/console/5/1/connection", "socket", "");
    HAS(tree, "/local/domain/0/backend/console/5/1/path", "/run/agent", "");
    HAS(tree, "/libxl/5/device/console/1/name", "agent", "");
}

TEST_CASE("In the store, each side can do with a written vif what it may do on Xen, and no more") {
    LocalXen xen;
    const auto back = xen.domain(), front = xen.domain(), other = xen.domain();
    Store dom0 = need(Store::open(xen.directory() + "/dom0/xenstored"));
    need(write_tree(dom0, vif_tree(test_vif(), front.id, back.id)));
    Store guest = need(Store::open(front.xenstored)), driver = need(Store::open(back.xenstored));
    Store stranger = need(Store::open(other.xenstored));
    const DeviceLink link{.device_class = "vif", .id = DeviceId{1}, .frontend = front.id, .backend = back.id};
    const std::string fe = frontend_path(link), be = backend_path(link), trusted = trusted_path(link);

    CHECK(need(guest.read(be + "/mac")) == "00:16:3e:00:00:01");
    CHECK(need(driver.read(fe + "/mac")) == "00:16:3e:00:00:01");
    CHECK(guest.write(fe + "/state", "4"));
    CHECK(guest.write(fe + "/tx-ring-ref", "8"));
    CHECK_FALSE(guest.write(fe + "/mtu", "65535"));
    CHECK_FALSE(guest.write(be + "/mac", "00:16:3e:ff:ff:ff"));
    CHECK_FALSE(guest.write(trusted + "/backend", "/local/domain/0"));
    CHECK_FALSE(guest.read(trusted + "/backend"));
    CHECK(driver.write(be + "/state", "2"));
    CHECK(driver.write(be + "/feature-sg", "1"));
    CHECK(need(guest.read(be + "/feature-sg")) == "1");  // what the backend adds, the frontend may read
    CHECK_FALSE(driver.write(fe + "/state", "4"));
    CHECK_FALSE(driver.read(trusted + "/backend"));
    CHECK_FALSE(stranger.read(fe + "/mac"));
    CHECK_FALSE(stranger.read(be + "/mac"));
    CHECK_FALSE(stranger.write(be + "/state", "6"));
}

TEST_CASE("A device that is removed leaves neither nodes nor empty folders") {
    LocalXen xen;
    const auto back = xen.domain(), front = xen.domain();
    Store dom0 = need(Store::open(xen.directory() + "/dom0/xenstored"));
    DomainConfig config;
    config.name = "guest";
    config.uuid = "4c6f6361-6c20-4879-8065-727669736f72";
    need(write_tree(dom0, domain_tree(config, front.id)));
    need(write_tree(dom0, vif_tree(test_vif(), front.id, back.id)));
    need(write_tree(dom0, console_tree(nullptr, front.id, control_domain)));
    const auto devices = need(devices_of(dom0, front.id));
    REQUIRE(devices.size() == 2);
    CHECK(devices[0].device_class == "console");
    CHECK(devices[0].backend == control_domain);
    CHECK(devices[1] == DeviceLink{.device_class = "vif", .id = DeviceId{1}, .frontend = front.id, .backend = back.id});

    need(remove_domain(dom0, front.id, config.uuid, std::chrono::milliseconds(50)));
    CHECK(need(dom0.list("/libxl")).empty());
    CHECK(need(dom0.list("/vm")).empty());
    CHECK_FALSE(need(dom0.read(domain_path(front.id))));
    CHECK_FALSE(need(dom0.read(domain_path(back.id) + "/backend")));
    CHECK_FALSE(need(dom0.read("/local/domain/0/backend")));
    CHECK(remove_domain(dom0, front.id, config.uuid, std::chrono::milliseconds(50)));  // twice is fine
}

TEST_CASE("What a backend says of its device comes to a terminal escaped, and not at length") {
    LocalXen xen;
    const auto back = xen.domain(), front = xen.domain();
    Store dom0 = need(Store::open(xen.directory() + "/dom0/xenstored")), backend = need(Store::open(back.xenstored));
    const DeviceLink link{.device_class = "vbd", .id = DeviceId{51712}, .frontend = front.id, .backend = back.id};
    const auto says = [&](const std::string& text) {
        need(backend.write("error/backend/vbd/" + std::to_string(front.id.raw) + "/51712/error", text));
        return why_not_connected(dom0, link);
    };
    CHECK_THAT(why_not_connected(dom0, link), Catch::Contains("caisson log"));
    CHECK(says("2 no such file") == "no such file");
    CHECK(says("no number") == "no number");
    CHECK(says("22 \x1b[2J\nroot# ") == "\\x1b[2J\\x0aroot# ");
    CHECK(says(std::string(2000, 'x')).size() == 400);
}
