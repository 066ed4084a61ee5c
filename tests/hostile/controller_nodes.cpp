// Hostile values in every node that a peer may write.
#include <catch2/catch.hpp>

#include "tests/support/hostile_controller.h"

using namespace caisson;
using namespace caisson::test;

TEST_CASE("xsa_057 a guest that writes anything into any node of its directory closes only its own device") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    for (const std::string key :
         {"ring-ref", "event-channel", "backend", "backend-id", "colour", "state", "unheard-of"})
        for (const std::string& value : hostile_values()) {
            guest.write(key, value);
            guest.state(4);
            guest.write(key, value);
        }
    CHECK(rig.settled());
    CHECK(rig.neighbour_connected());
    // A full reconnect with honest values is served.
    guest.state(6);
    CHECK(rig.shows(rig.b(), "6"));
    guest.announce();
    guest.write("colour", "1");
    guest.state(1);
    CHECK(rig.shows(rig.b(), "2"));
    guest.state(4);
    CHECK(rig.shows(rig.b(), "4"));
}

TEST_CASE("xsa_175 a guest that re-points its backend node leads nobody astray") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    guest.write("backend", "/local/domain/" + std::to_string(rig.neighbour.id.raw) + "/data");
    guest.write("backend-id", std::to_string(rig.neighbour.id.raw));
    guest.state(4);
    CHECK(rig.shows(rig.b(), "4"));
    // The toolstack's detach works from its own side's paths.
    rig.toolstack.detach(rig.back.id, rig.front.id, 0);
    CHECK(rig.shows(rig.b(), "5"));
    guest.state(6);
    CHECK(eventually([&] { return !need(rig.toolstack.store().read(rig.b() + "/state")); }));
    CHECK(rig.neighbour_connected());
}

TEST_CASE("xsa_178 a driver domain that writes anything into any node closes only its own device") {
    UnderAttack rig(Role::frontend);
    auto store = need(Store::open(rig.back.xenstored));
    const std::string mine = "backend/echo/" + std::to_string(rig.front.id.raw) + "/0";
    for (const std::string key : {"echo-version", "online", "frontend", "frontend-id", "state", "unheard-of"})
        for (const std::string& value : hostile_values()) {
            need(store.write(mine + "/" + key, value));
            need(store.write(mine + "/state", "2"));
            need(store.write(mine + "/" + key, value));
        }
    CHECK(rig.neighbour_connected());
    // An honest backend is served by the same frontend.
    need(store.write(mine + "/state", "6"));
    CHECK(rig.shows(rig.f(), "6"));
    need(store.write(mine + "/echo-version", "1"));
    need(store.write(mine + "/state", "2"));
    CHECK(rig.shows(rig.f(), "3"));
    need(store.write(mine + "/state", "4"));
    CHECK(rig.shows(rig.f(), "4"));
    CHECK(rig.neighbour_connected());
}

TEST_CASE("a directory with impossible names is no device, and no reason to stop") {
    UnderAttack rig(Role::backend);
    const std::string top = Toolstack::home(rig.back.id) + "/backend/echo/";
    for (const char* name : {"-1", "65535", "32752", "99999", "007", "x", "1e3"}) {
        rig.toolstack.write(top + name + "/0/frontend-id", name);
        rig.toolstack.write(top + std::to_string(rig.front.id.raw) + "/" + name + "/frontend-id", "0");
    }
    CHECK(rig.settled());
    CHECK(rig.neighbour_connected());
}
