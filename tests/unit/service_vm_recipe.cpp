// The recipe of a service VM: what PID 1 does, and what is refused when an image is built.
#include <catch2/catch.hpp>

#include "domains/service_vm/recipe.h"

using namespace caisson;
using namespace caisson::service_vm;

namespace {

std::string refusal(std::string_view text) {
    const auto recipe = parse_recipe(text, "a.recipe");
    return recipe ? "none" : recipe.error().message();
}

}  // namespace

TEST_CASE("a recipe says modules in order, interfaces and what is served") {
    const auto recipe = parse_recipe(
        "# a network domain\n\nmodule xen-gntalloc limit=64 other=1  # pages\nmodule tun\nbridge br0 10.0.0.1/24\n"
        "interface eth0 in br0\ninterface eth1 192.168.1.7/24 fd00::7/64 via 192.168.1.1\nforward\nserve both\n",
        "a.recipe");
    REQUIRE(recipe);
    REQUIRE(recipe->modules.size() == 2);
    CHECK(recipe->modules[0].name == "xen-gntalloc");
    CHECK(recipe->modules[0].parameters == "limit=64 other=1");
    REQUIRE(recipe->interfaces.size() == 3);
    CHECK(recipe->interfaces[0].bridge);
    CHECK(recipe->interfaces[0].addresses.at(0).bits == 24);
    CHECK(recipe->interfaces[1].master == "br0");
    CHECK(recipe->interfaces[2].addresses.at(1).v6());
    CHECK(recipe->interfaces[2].gateway == "192.168.1.1");
    CHECK((recipe->forward && recipe->backends && recipe->frontends));
}

TEST_CASE("a wrong recipe is refused with its file and line") {
    CHECK(refusal("serve backends\nshell /bin/sh\n") == "a.recipe:2: there is no word 'shell'");
    CHECK(refusal("module\n") == "a.recipe:1: module: which one?");
    CHECK(refusal("module ../../etc/x\n") == "a.recipe:1: '../../etc/x' is no name of a module");
    CHECK(refusal("module tun quiet\n") == "a.recipe:1: 'quiet' is no PARAMETER=VALUE");
    CHECK(refusal("\ninterface eth0 10.0.0.1\n") == "a.recipe:2: '10.0.0.1' has no /BITS");
    CHECK(refusal("interface eth0 10.0.0.1/33\n") == "a.recipe:1: '10.0.0.1/33' has no sound /BITS");
    CHECK(refusal("interface eth0 10.0.0.256/24\n") == "a.recipe:1: '10.0.0.256' is no address");
    CHECK(refusal("interface eth0 via\n") == "a.recipe:1: 'via' is the last word");
    CHECK(refusal("interface a-name-that-is-too-long\n") ==
          "a.recipe:1: 'a-name-that-is-too-long' is no name of an interface");
    CHECK(refusal("serve coffee\n") == "a.recipe:1: expected: serve backends, frontends or both");
    CHECK(refusal("masquerade\n") == "a.recipe:1: expected: masquerade NAME");
    CHECK(refusal("forward now\n") == "a.recipe:1: 'forward' stands alone");
    CHECK(refusal("interface eth0 in br1\nserve backends\n") ==
          "a.recipe:2: 'eth0' shall be in 'br1', which is no bridge of the recipe");
    CHECK(refusal("forward\n") == "a.recipe:1: nothing is served: no line 'serve'");
    CHECK(refusal("") == "a.recipe:0: nothing is served: no line 'serve'");
}

TEST_CASE("a domain's own words come from its kernel's command line") {
    CHECK(
        lines_of_command_line("console=hvc0 caisson.interface=eth0,10.0.0.2/24,via,10.0.0.1 quiet caisson.forward\n") ==
        "interface eth0 10.0.0.2/24 via 10.0.0.1\nforward\n");
    CHECK(lines_of_command_line("caisson.module=brd,rd_size=64") == "module brd rd_size=64\n");
    CHECK(lines_of_command_line("console=hvc0 notcaisson.x=1").empty());
    CHECK(lines_of_command_line("").empty());
}
