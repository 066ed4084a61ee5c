// Domains that root makes are other users, and the program may be where other users may not go: a checkout below /root.
#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "tests/support/temporary.h"
#include "tests/unit/command_world.h"

using caisson::test::CommandWorld;
namespace fs = std::filesystem;

namespace {

// A copy of the command below a folder of one user's, who is not the one who runs it.
class HiddenProgram {
  public:
    HiddenProgram() {
        fs::copy_file(CAISSON_COMMAND, command());
        fs::permissions(command(), fs::perms::owner_all);
        REQUIRE(::chown(folder_.path().c_str(), 12345, 12345) == 0);
    }
    std::string command() const { return folder_ / "caisson"; }

  private:
    caisson::test::TemporaryFolder folder_;
};

}  // namespace

TEST_CASE("Domains and their services and workers run a program that only root can reach") {
    if (::geteuid() != 0) {
        WARN("skipped: only the domains that root makes are other users");
        return;
    }
    // Asked with the program where it was built: here a refusal is no reason to skip.
    if (!CommandWorld().possible()) return;
    const HiddenProgram program;
    const CommandWorld world("", program.command());  // with Dom0's consoles
    const auto uplink = world.run("create " + world.cfg("uplink", "driver_domain=1\n") + " --wait");
    INFO(uplink.out);
    REQUIRE(uplink.code == 0);

    const auto guest = world.run("create " + world.cfg("guest", "vif=['backend=uplink']\n") +
                                 " caisson_console_backend=\"'Domain-0'\" --wait");
    INFO(guest.out);
    REQUIRE(guest.code == 0);
    CHECK(world.run("exec guest -- hostname").out == "guest\n");
    CHECK(world.run("exec guest -- /run/caisson/caisson --help").code == 0);
    CHECK(world.run("exec guest -- cat " + program.command()).code != 0);

    SECTION("and cannot change it") {
        CHECK(world.run("exec guest -- sh -c 'echo x >>/run/caisson/caisson'").code != 0);
        CHECK(world.run("exec guest -- sh -c 'echo x >>/proc/1/exe'").code != 0);
        CHECK(world.run("exec guest -- chmod 777 /run/caisson/caisson").code != 0);
        CHECK(world.run("exec guest -- umount /run/caisson/caisson").code != 0);
        CHECK(world.run("exec guest -- mount -o remount,bind,rw /run/caisson/caisson").code != 0);
    }
    SECTION("which takes nothing from its folders in memory") {
        CHECK(world.run("exec guest -- sh -c 'test $(df -k --output=used /run | tail -n 1) -lt 1000'").code == 0);
    }
}
