// Every living domain of root's has a range of user ids of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <set>
#include <vector>

#include "domains/domain/ids.h"
#include "tests/support/temporary.h"
#include "tests/unit/command_world.h"

using namespace caisson;
using caisson::domain::IdRange;
using caisson::test::CommandWorld;
using caisson::test::TemporaryFile;

namespace {

// The first id outside of a domain's root.
std::uint64_t root_of(pid_t init) {
    std::ifstream map("/proc/" + std::to_string(init) + "/uid_map");
    std::uint64_t inside = 0, outside = 0;
    map >> inside >> outside;
    return outside;
}

bool may_pin_scores() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("CapEff:")) return (std::stoull(line.substr(7), nullptr, 16) >> 24 & 1) != 0;
    return false;
}

}  // namespace

TEST_CASE("no two claims have the same range of ids, whoever makes them and wherever they start to look") {
    const TemporaryFile file;
    std::vector<IdRange> held;
    std::set<std::uint64_t> firsts;
    for (int i = 0; i < 50; ++i) {
        auto range = IdRange::claim(7 + 16000 * (i % 3), file.path());
        REQUIRE(range);
        CHECK(range->first() % IdRange::ids == 0);
        CHECK(firsts.insert(range->first()).second);
        held.push_back(std::move(*range));
    }
    // Another process, which has its own idea of what it holds.
    const pid_t other = ::fork();
    if (other == 0) {
        const auto range = IdRange::claim(7, file.path());
        ::_exit(range && !firsts.contains(range->first()) ? 0 : 1);
    }
    int status = 1;
    REQUIRE(::waitpid(other, &status, 0) == other);
    CHECK(status == 0);
}

TEST_CASE("a range is free again when its claim ends, unless a process still lives in it") {
    const TemporaryFile file;
    auto range = IdRange::claim(11, file.path());
    REQUIRE(range);
    const std::uint64_t first = range->first();
    range = IdRange::claim(12, file.path());  // the old one ends
    CHECK(IdRange::claim(11, file.path())->first() == first);
    if (::geteuid() != 0) {
        WARN("skipped: only root can be a process with such an id");
        return;
    }
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t survivor = ::fork();
    if (survivor == 0) {
        if (::setresuid(static_cast<uid_t>(first + 5), static_cast<uid_t>(first + 5), static_cast<uid_t>(first + 5)) !=
            0)
            ::_exit(1);
        (void)!::write(ready[1], "x", 1);
        ::pause();
        ::_exit(0);
    }
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    CHECK(IdRange::claim(11, file.path())->first() != first);
    ::kill(survivor, SIGKILL);
    ::waitpid(survivor, nullptr, 0);
    ::close(ready[0]), ::close(ready[1]);
    CHECK(IdRange::claim(11, file.path())->first() == first);
}

TEST_CASE("domains of two hypervisors on one machine have different users, and the limits of guests") {
    CommandWorld one, two;
    if (!one.possible()) return;
    REQUIRE(one.run("create " + one.cfg("a", "")).code == 0);
    REQUIRE(one.run("create " + one.cfg("b", "")).code == 0);
    REQUIRE(two.run("create " + two.cfg("a", "")).code == 0);
    std::set<std::uint64_t> roots;
    std::size_t domains = 0;
    for (const auto* world : {&one, &two})
        for (const auto& domain : world->list()) {
            if (domain["id"] == 0) continue;
            ++domains;
            const auto init = domain["pid"].get<pid_t>();
            roots.insert(root_of(init));
            std::ifstream score("/proc/" + std::to_string(init) + "/oom_score_adj");
            int adjusted = 0;
            score >> adjusted;
            CHECK(adjusted == 800);
        }
    CHECK(domains == 3);
    CHECK(roots.size() == (::geteuid() == 0 ? 3 : 1));

    const auto limit = one.run("exec a -- sh -c 'ulimit -Sn; ulimit -Hn; ulimit -Hn 100000 || echo refused'").out;
    CHECK_THAT(limit, Catch::Contains("1024\n4096\n") && Catch::Contains("refused"));
    const auto job =
        one.run("create --foreground " + one.cfg("job", "caisson_run='ulimit -Hn; cat /proc/self/oom_score_adj'\n"));
    CHECK_THAT(job.out, Catch::Contains("4096") && Catch::Contains("800"));
}

TEST_CASE("a domain cannot take back that the kernel kills in it first") {
    if (!may_pin_scores()) {
        WARN("skipped: without CAP_SYS_RESOURCE a domain can lower its oom_score_adj again");
        return;
    }
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    CHECK(world.run("exec one -- sh -c 'echo 0 >/proc/self/oom_score_adj'").code != 0);
}
