// What a guest prints is captured whole, however soon it ends.
#include <catch2/catch.hpp>

#include "tests/unit/command_world.h"

using caisson::test::CommandWorld;

TEST_CASE("A guest that prints and exits at once is captured whole") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("consoles", "driver_domain=1\ncaisson_console_backend='none'\n")).code ==
            0);
    const auto said = [&](const std::string& name, const std::string& run) {
        const auto ended = world.run("create -F " + world.cfg(name,
                                                              "caisson_console_backend='consoles'\n"
                                                              "caisson_console_log='file=/run/" +
                                                                  name + ".log'\ncaisson_run='" + run + "'\n"));
        INFO(ended.out);
        CHECK(ended.code == 3);
        return world.run("exec consoles -- sh -c 'wc -l </run/" + name + ".log; tail -n 1 /run/" + name + ".log'").out;
    };
    for (const char* name : {"one", "two", "three"}) CHECK(said(name, "echo hello; exit 3") == "1\nhello\n");
    CHECK(said("many", "seq 1 5000; exit 3") == "5000\n5000\n");
}
