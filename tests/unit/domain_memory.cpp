// A domain's memory is bounded where a cgroup may be written.
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "domains/domain/memory_limit.h"
#include "tests/support/temporary.h"
#include "tests/unit/command_world.h"

using namespace caisson;
using caisson::domain::MemoryLimit;
using caisson::test::CommandWorld;
using caisson::test::TemporaryFolder;

namespace {

// What a delegated folder looks like, without a kernel behind it: files that are there and take what is written.
struct Delegated {
    Delegated() { ::setenv("CAISSON_CGROUP", folder.path().c_str(), 1); }
    ~Delegated() { ::unsetenv("CAISSON_CGROUP"); }
    std::string text(const std::string& name) const {
        std::ifstream in(folder / name);
        std::stringstream all;
        all << in.rdbuf();
        return all.str();
    }
    TemporaryFolder folder;
};

}  // namespace

TEST_CASE("a domain's cgroup has its memory and that of its services, and PID 1 in it") {
    const Delegated delegated;
    delegated.folder.file("cgroup.subtree_control");
    std::filesystem::create_directory(delegated.folder / "domain-4711");
    delegated.folder.file("domain-4711/memory.max");
    delegated.folder.file("domain-4711/cgroup.procs");
    const auto limit = MemoryLimit::set(4711, 100);
    REQUIRE(limit);
    CHECK(delegated.text("cgroup.subtree_control") == "+memory");
    CHECK(delegated.text("domain-4711/memory.max") == std::to_string(164ULL << 20));
    CHECK(delegated.text("domain-4711/cgroup.procs") == "4711");
}

TEST_CASE("without a cgroup that may be written the reason is named and the domain lives") {
    const Delegated delegated;  // an ordinary folder
    const auto limit = MemoryLimit::set(4711, 100);
    REQUIRE_FALSE(limit);
    CHECK_THAT(limit.error().message(), Catch::Contains("cgroup.subtree_control"));
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    CHECK_THAT(world.run("log one").out, Catch::Contains("its memory is not bounded: "));
}

TEST_CASE("a guest that takes more memory than it has is killed, and the hypervisor is not") {
    CommandWorld world;
    if (!world.possible()) return;
    const auto made = world.run(
        "create --foreground " +
        world.cfg("greedy", "maxmem=32\ncaisson_run='head -c 400m /dev/zero | tail >/dev/null; echo survived $?'\n"));
    if (made.out.find("not bounded") != std::string::npos ||
        world.run("log greedy").out.find("not bounded") != std::string::npos) {
        WARN("skipped: no cgroup of version 2 may be written here");
        return;
    }
    CHECK_THAT(made.out, !Catch::Contains("survived 0"));
    CHECK(world.run("list").code == 0);
}
