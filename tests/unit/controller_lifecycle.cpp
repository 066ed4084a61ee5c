#include <catch2/catch.hpp>

#include <algorithm>

#include "tests/support/controller_rig.h"

using namespace caisson;
using namespace caisson::test;

namespace {

constexpr auto in_processes = ControllerThread::Where::processes;
constexpr auto in_this_thread = ControllerThread::Where::this_thread;

struct Rig {
    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain();
    Toolstack toolstack{xen};

    std::string b(std::uint32_t id = 0) { return Toolstack::back(back.id, front.id, id); }
    std::string f(std::uint32_t id = 0) { return Toolstack::front(front.id, id); }
    bool connected(std::uint32_t id = 0) { return toolstack.connected(back.id, front.id, id); }
    bool reads(const std::string& path, const std::string& value) {
        return eventually([&] { return toolstack.read(path) == value; });
    }
};

const DeviceStats* statistics(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDONLY));
    void* page = ::mmap(nullptr, sizeof(DeviceStats), PROT_READ, MAP_SHARED, file.get(), 0);
    return page == MAP_FAILED ? nullptr : static_cast<const DeviceStats*>(page);
}

bool none_of(const std::vector<pid_t>& processes, const std::vector<pid_t>& those) {
    return std::ranges::find_first_of(processes, those) == processes.end();
}

}  // namespace

TEST_CASE("two controllers in one process each bring a pair to Connected and let it go") {
    Rig rig;
    ControllerThread devd(rig.back, {.backends = true}, in_this_thread);
    ControllerThread frontd(rig.front, {.frontends = true}, in_this_thread);
    rig.toolstack.attach(rig.back.id, rig.front.id, 0);
    REQUIRE(eventually([&] { return rig.connected(); }));
    CHECK(rig.toolstack.read(rig.b() + "/attaches") == "1");

    SECTION("when the toolstack detaches") {
        rig.toolstack.detach(rig.back.id, rig.front.id, 0);
        CHECK(rig.reads(rig.f() + "/state", "6"));
        CHECK(eventually([&] { return !need(rig.toolstack.store().read(rig.b() + "/state")); }));
    }
    SECTION("when the directories vanish") {
        rig.toolstack.remove(rig.back.id, rig.front.id, 0);
        CHECK(eventually(
            [&] { return rig.xen.info(rig.back.id).mappings == 0 && rig.xen.info(rig.front.id).grants == 0; }));
    }
    SECTION("when the frontend's controller ends, and again when it comes back") {
        frontd.stop();
        CHECK(rig.reads(rig.b() + "/state", "6"));
        ControllerThread again(rig.front, {.frontends = true}, in_this_thread);
        CHECK(eventually([&] { return rig.connected(); }));
    }
    SECTION("when the backend's controller ends, and again when it comes back") {
        devd.stop();
        CHECK(rig.reads(rig.f() + "/state", "6"));
        ControllerThread again(rig.back, {.backends = true}, in_this_thread);
        CHECK(eventually([&] { return rig.connected(); }));
    }
    devd.stop();
    frontd.stop();
    CHECK(rig.xen.info(rig.back.id).mappings == 0);
    CHECK(rig.xen.info(rig.back.id).ports == 0);
    CHECK(rig.xen.info(rig.front.id).ports == 0);
}

TEST_CASE("sealed worker processes serve a pair of devices") {
    Rig rig;
    const std::string pages = rig.xen.directory() + "/stats";
    std::filesystem::create_directory(pages);
    ControllerThread devd(rig.back, {.backends = true}, in_processes, pages);
    ControllerThread frontd(rig.front, {.frontends = true}, in_processes, pages);
    rig.toolstack.attach(rig.back.id, rig.front.id, 0);
    REQUIRE(eventually([&] { return rig.connected(); }));

    const auto name = std::to_string(rig.front.id.raw) + "-0";
    const DeviceStats* stats = statistics(pages + "/echo-backend-" + name);
    REQUIRE(stats);
    CHECK(stats->magic == stats_magic);
    CHECK(stats->frontend == rig.front.id.raw);
    CHECK(eventually([&] { return stats->queue[0].requests.get() > 10; }));

    SECTION("a change of a watched key reaches the worker, and what it publishes reaches the store") {
        rig.toolstack.write(rig.f() + "/colour", "42");
        CHECK(rig.reads(rig.b() + "/shown-colour", "42"));
    }
    SECTION("a killed backend worker is replaced and goes on from its journal") {
        for (int kills = 1; kills <= 5; ++kills) {
            const auto workers = serving_workers();
            REQUIRE(workers.size() == 1);
            const auto before = stats->queue[0].requests.get();
            ::kill(workers[0], SIGKILL);
            CHECK(rig.reads(rig.b() + "/attaches", std::to_string(kills + 1)));
            CHECK(eventually([&] { return stats->queue[0].requests.get() > before + 10; }));
            CHECK(eventually([&] { return stats->restarts.get() == static_cast<std::uint64_t>(kills); }));
            CHECK(rig.connected());
        }
        CHECK(rig.toolstack.read(rig.f() + "/state") == "4");
    }
    SECTION("a spare that dies with the worker is no second restart") {
        for (std::uint64_t kills = 1; kills <= 5; ++kills) {
            // A front and a back, and a spare for each.
            REQUIRE(eventually([&] { return child_processes().size() == 4; }));
            // The spares first: one that is handed the device while it lives is a restart of its own.
            const auto serving = serving_workers(), killed = child_processes();
            REQUIRE(serving.size() == 1);
            for (const pid_t worker : killed)
                if (worker != serving[0]) ::kill(worker, SIGKILL);
            ::kill(serving[0], SIGKILL);
            REQUIRE(eventually([&] { return child_processes().size() == 4 && none_of(child_processes(), killed); }));
            const auto before = stats->queue[0].requests.get();
            CHECK(eventually([&] { return stats->queue[0].requests.get() > before + 10; }));
            // Counted when the controller hears that the successor serves, which is a moment after it does.
            CHECK(eventually([&] { return stats->restarts.get() >= kills; }));
            CHECK(stats->restarts.get() == kills);
        }
    }
    SECTION("a device is attached beside it and detached again without a trace") {
        const auto before = rig.xen.info(rig.back.id);
        rig.toolstack.attach(rig.back.id, rig.front.id, 1);
        REQUIRE(eventually([&] { return rig.connected(1); }));
        rig.toolstack.detach(rig.back.id, rig.front.id, 1);
        CHECK(eventually([&] { return !need(rig.toolstack.store().read(rig.b(1) + "/state")); }));
        rig.toolstack.remove(rig.back.id, rig.front.id, 1);
        CHECK(eventually([&] {
            const auto after = rig.xen.info(rig.back.id);
            return after.mappings == before.mappings && after.ports == before.ports &&
                   after.connections == before.connections;
        }));
        CHECK(rig.connected(0));
    }
}

TEST_CASE("devices of one group share a worker, and all of them survive its death") {
    Rig rig;
    ControllerThread devd(rig.back, {.backends = true}, in_processes);
    ControllerThread frontd(rig.front, {.frontends = true}, in_processes);
    for (std::uint32_t id = 0; id < 3; ++id) rig.toolstack.attach(rig.back.id, rig.front.id, id, "bridge");
    for (std::uint32_t id = 0; id < 3; ++id) REQUIRE(eventually([&] { return rig.connected(id); }));
    const auto workers = serving_workers();
    REQUIRE(workers.size() == 1);
    ::kill(workers[0], SIGKILL);
    for (std::uint32_t id = 0; id < 3; ++id) CHECK(rig.reads(rig.b(id) + "/attaches", "2"));
    for (std::uint32_t id = 0; id < 3; ++id) CHECK(rig.connected(id));
}

TEST_CASE("one controller is frontend and backend at once, as in a firewall domain") {
    LocalXen xen;
    const auto net = xen.domain(), firewall = xen.domain(), guest = xen.domain();
    Toolstack toolstack(xen);
    ControllerThread a(net, {.backends = true}, in_this_thread);
    ControllerThread b(firewall, {.backends = true, .frontends = true}, in_this_thread);
    ControllerThread c(guest, {.frontends = true}, in_this_thread);
    toolstack.attach(net.id, firewall.id, 0);
    toolstack.attach(firewall.id, guest.id, 0);
    CHECK(eventually([&] { return toolstack.connected(net.id, firewall.id, 0); }));
    CHECK(eventually([&] { return toolstack.connected(firewall.id, guest.id, 0); }));
}

TEST_CASE("a frontend that gets another backend keeps what its programs have of it, and one that goes does not") {
    Rig rig;
    const LocalXen::Domain other = rig.xen.domain();
    ControllerThread devd(rig.back, {.backends = true}, in_this_thread);
    ControllerThread second(other, {.backends = true}, in_this_thread);
    ControllerThread frontd(rig.front, {.frontends = true}, in_this_thread);
    const EchoCalls& calls = echo_calls(Role::frontend);
    const int before = calls.controls;
    rig.toolstack.attach(rig.back.id, rig.front.id, 0);
    REQUIRE(eventually([&] { return rig.connected(); }));
    CHECK(calls.controls == before + 1);

    SECTION("another domain is the backend, and then the first one again") {
        rig.toolstack.attach(other.id, rig.front.id, 0);
        REQUIRE(eventually([&] { return rig.toolstack.connected(other.id, rig.front.id, 0); }));
        need(rig.toolstack.store().remove(rig.b()));
        rig.toolstack.attach(rig.back.id, rig.front.id, 0);
        REQUIRE(eventually([&] { return rig.connected(); }));
        CHECK(calls.controls == before + 1);
        CHECK(calls.connects - calls.disconnects == 1);
    }
    SECTION("the device goes, and another one comes in its place") {
        // Its own directory first: a frontend whose backend goes lets go of its grants, too, and could find the other
        // device there when it looks at its own again.
        need(rig.toolstack.store().remove(rig.f()));
        REQUIRE(eventually([&] { return rig.xen.info(rig.front.id).grants == 0; }));
        need(rig.toolstack.store().remove(rig.b()));
        rig.toolstack.attach(other.id, rig.front.id, 0);
        REQUIRE(eventually([&] { return rig.toolstack.connected(other.id, rig.front.id, 0); }));
        CHECK(calls.controls == before + 2);
    }
}

TEST_CASE("a peer that breaks the rules has its device closed with the reason in the store") {
    Rig rig;
    ControllerThread devd(rig.back, {.backends = true}, in_processes);
    rig.toolstack.attach(rig.back.id, rig.front.id, 0);
    REQUIRE(rig.reads(rig.b() + "/state", "2"));
    // The frontend's side by hand.
    auto page = need(rig.front.hypervisor->share(rig.back.id, 1, Access::read_write));
    auto channel = need(rig.front.hypervisor->allocate_unbound(rig.back.id));
    auto store = need(Store::open(rig.front.xenstored));
    need(write_keys(Directory(store, "device/echo/0"), EchoRing{page.refs()[0], channel.port()}));
    need(store.write("device/echo/0/state", "4"));
    REQUIRE(rig.reads(rig.b() + "/state", "4"));

    SECTION("as it says so itself") {
        page.memory().copy_in(0, std::as_bytes(std::span(&poison, 1)));
        channel.notify();
        CHECK(rig.reads(rig.b() + "/state", "5"));
        CHECK(rig.toolstack
                  .read(Toolstack::home(rig.back.id) + "/error/backend/echo/" + std::to_string(rig.front.id.raw) +
                        "/0/error")
                  .find("counter") != std::string::npos);
    }
    SECTION("as its worker dies of it again and again") {
        page.memory().copy_in(0, std::as_bytes(std::span(&deadly, 1)));
        channel.notify();
        CHECK(rig.reads(rig.b() + "/state", "5"));
        const std::uint32_t harmless = 1;
        page.memory().copy_in(0, std::as_bytes(std::span(&harmless, 1)));
    }
    need(store.write("device/echo/0/state", "6"));
    CHECK(rig.reads(rig.b() + "/state", "6"));
    CHECK(eventually([&] { return rig.xen.info(rig.back.id).mappings == 0; }));
    // A full reconnect is a new beginning.
    need(store.write("device/echo/0/state", "1"));
    CHECK(rig.reads(rig.b() + "/state", "2"));
}
