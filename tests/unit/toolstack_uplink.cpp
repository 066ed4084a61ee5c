// caisson_uplink="netdev": an interface of the machine moves into a domain. The machine is a network namespace here.
#include <catch2/catch.hpp>

#include "tests/unit/command_world.h"

using caisson::test::CommandWorld;

namespace {

// A machine with an interface up0, at whose other end 198.51.100.1 answers.
class Machine {
  public:
    Machine() {
        const std::string mine = "ip -n " + name + " ", theirs = "ip -n " + outside + " ";
        for (const std::string& step :
             {"ip netns add " + name, "ip netns add " + outside,
              mine + "link add up0 type veth peer name out0 netns " + outside,
              theirs + "address add 198.51.100.1/24 dev out0", theirs + "link set dev out0 up"}) {
            const auto done = CommandWorld::shell(step);
            if (done.code != 0) trouble += step + ": " + done.out;
        }
    }
    ~Machine() {
        CommandWorld::shell("ip netns delete " + name);
        CommandWorld::shell("ip netns delete " + outside);
    }
    Machine(const Machine&) = delete;
    std::string command() const { return "ip netns exec " + name + " " + CAISSON_COMMAND; }

    const std::string name = "caisson-test-" + std::to_string(::getpid()), outside = name + "-out";
    std::string trouble;
};

}  // namespace

TEST_CASE("An interface of the machine is a network domain's uplink") {
    if (::geteuid() != 0) {
        WARN("skipped: only root can move an interface into a domain");
        return;
    }
    const Machine machine;
    if (!machine.trouble.empty()) {
        WARN("skipped: no network namespaces or veth pairs here: " << machine.trouble);
        return;
    }
    CommandWorld world("--no-console", machine.command());
    if (!world.possible()) return;
    const auto cfg = [&](const std::string& device) {
        return world.cfg("sys-net", "driver_domain=1\ncaisson_uplink='netdev,dev=" + device +
                                        ",ip=198.51.100.2/24,gateway=198.51.100.1'\n");
    };
    const auto absent = world.run("create " + cfg("up7"));
    CHECK(absent.code == 1);
    CHECK_THAT(absent.out, Catch::Contains("sys-net.cfg:5: caisson_uplink: this machine has no interface up7"));
    CHECK(world.list().size() == 1);

    const auto made = world.run("create " + cfg("up0"));
    INFO(made.out);
    REQUIRE(made.code == 0);
    CHECK(CommandWorld::shell("ip -n " + machine.name + " link show dev up0").code != 0);
    // Configured by PID 1 some time after it started.
    CHECK(
        world
            .run("exec sys-net sh -c 'for i in $(seq 500); do ip route | grep -q ^default && break; sleep 0.02; done; "
                 "ping -c 1 -W 10 198.51.100.1'")
            .code == 0);
    CHECK_THAT(world.run("exec sys-net ip route").out, Catch::Contains("default via 198.51.100.1 dev up0"));
}
