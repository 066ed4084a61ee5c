// Peers that connect, disconnect and jump: nothing is left behind, whatever the order.
#include <catch2/catch.hpp>

#include "tests/support/hostile_controller.h"

using namespace caisson;
using namespace caisson::test;

namespace {

constexpr int toggles = 200;

void end_in_closed(UnderAttack& rig, HandmadeFrontend& guest) {
    guest.state(6);
    REQUIRE(rig.shows(rig.b(), "6"));
    REQUIRE(rig.settled());
}

}  // namespace

TEST_CASE("xsa_350 connecting and disconnecting as fast as the store takes it leaves nothing behind") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    guest.state(4);
    REQUIRE(rig.shows(rig.b(), "4"));
    end_in_closed(rig, guest);
    const auto before = rig.held();
    for (int i = 0; i < toggles; ++i) {
        guest.state(1);
        if (i % 3 == 0) REQUIRE(rig.settled());  // sometimes the controller gets to connect in between
        guest.state(4);
        if (i % 4 == 0) REQUIRE(rig.settled());
        guest.state(i % 2 == 0 ? 6 : 5);
    }
    end_in_closed(rig, guest);
    CHECK(rig.held() == before);
    CHECK(rig.neighbour_connected());
    CHECK(echo_calls(Role::backend).connects > 0);
}

TEST_CASE("xsa_374 a guest that breaks the rules and then disconnects leaves nothing behind") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    std::optional<UnderAttack::Held> before;
    for (int i = 0; i < 20; ++i) {
        guest.state(1);
        REQUIRE(rig.shows(rig.b(), "2"));
        guest.state(4);
        REQUIRE(rig.shows(rig.b(), "4"));
        guest.ask(poison);
        if (i % 2 == 0) REQUIRE(rig.shows(rig.b(), "5"));
        guest.ask(0);
        end_in_closed(rig, guest);
        if (!before) before = rig.held();
    }
    CHECK(rig.held() == *before);
    CHECK(rig.neighbour_connected());
}

TEST_CASE("xsa_465 every state after every other state, and then an honest connect") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    std::optional<UnderAttack::Held> before;
    for (int first = 0; first <= 8; ++first) {
        for (int second = 0; second <= 8; ++second) {
            INFO("states " << first << ", " << second);
            guest.state(first);
            REQUIRE(rig.settled());
            guest.state(second);
            REQUIRE(rig.settled());
        }
        guest.state(6);
        REQUIRE(rig.settled());
        guest.state(1);
        REQUIRE(rig.shows(rig.b(), "2"));
        guest.state(4);
        REQUIRE(rig.shows(rig.b(), "4"));
        end_in_closed(rig, guest);
        if (!before) before = rig.held();
        CHECK(rig.held() == *before);
    }
    CHECK(rig.neighbour_connected());
}

TEST_CASE("xsa_465_backend a backend that jumps through all its states leaves a frontend that can still connect") {
    UnderAttack rig(Role::frontend);
    auto store = need(Store::open(rig.back.xenstored));
    const std::string state = "backend/echo/" + std::to_string(rig.front.id.raw) + "/0/state";
    std::optional<UnderAttack::Held> before;
    for (int first = 0; first <= 8; ++first) {
        for (int second = 0; second <= 8; ++second) {
            need(store.write(state, std::to_string(first)));
            need(store.write(state, std::to_string(second)));
        }
        need(store.write(state, "6"));
        REQUIRE(eventually([&] {
            const auto shown = rig.toolstack.read(rig.f() + "/state");
            return shown == "6" || shown == "1";
        }));
        need(store.write(state, "2"));
        REQUIRE(rig.shows(rig.f(), "3"));
        need(store.write(state, "4"));
        REQUIRE(rig.shows(rig.f(), "4"));
        need(store.write(state, "6"));
        REQUIRE(rig.shows(rig.f(), "6"));
        if (!before) before = rig.held();
        CHECK(eventually([&] { return rig.held() == *before; }));
    }
    CHECK(rig.neighbour_connected());
}

TEST_CASE("xsa_371 domains that die while connected leave nothing behind") {
    LocalXen xen;
    const auto back = xen.domain();
    Toolstack toolstack(xen);
    ControllerThread devd(back, {.backends = true}, ControllerThread::Where::this_thread);
    const auto before = xen.info(back.id).connections;
    for (int i = 0; i < 10; ++i) {
        auto front = xen.domain();
        toolstack.attach(back.id, front.id, 0);
        {
            ControllerThread frontd(front, {.frontends = true}, ControllerThread::Where::this_thread);
            REQUIRE(eventually([&] { return toolstack.connected(back.id, front.id, 0); }));
            xen.destroy(front);
        }
        toolstack.remove(back.id, front.id, 0);
        REQUIRE(eventually([&] {
            const auto info = xen.info(back.id);
            return info.mappings == 0 && info.ports == 0 && info.connections == before;
        }));
    }
}
