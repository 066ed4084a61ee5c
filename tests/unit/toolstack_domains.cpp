// Domains as processes: made, joined, kept apart, ended, and nothing left of them.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <regex>
#include <sstream>
#include <thread>

#include "ring/store.h"
#include "tests/unit/command_world.h"

using namespace caisson;
using caisson::test::CommandWorld;

namespace {

std::vector<std::string> nodes_below(Store& store, const std::string& path) {
    std::vector<std::string> all{path};
    const auto names = store.list(path);
    INFO(path << ": " << (names ? "" : names.error().message()));
    REQUIRE(names);
    for (const auto& name : *names) {
        const auto below = nodes_below(store, (path == "/" ? "" : path) + "/" + name);
        all.insert(all.end(), below.begin(), below.end());
    }
    return all;
}

}  // namespace

TEST_CASE("exec ends with the command's code, and the command is root of a machine of its own") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    CHECK(world.run("exec one -- true").code == 0);
    CHECK(world.run("exec one -- sh -c 'exit 42'").code == 42);
    CHECK(world.run("exec one -- sh -c 'kill -TERM $$'").code == 128 + 15);
    CHECK(world.run("exec one -- no-such-command").code == 127);
    CHECK(world.run("exec one -- /etc/passwd").code == 126);
    CHECK(world.run("exec one -- hostname").out == "one\n");
    CHECK(world.run("exec one -- id -u").out == "0\n");
    // Options behind the domain's name are the command's, ours stand before it or before its command.
    CHECK(world.run("exec one id -u").out == "0\n");
    CHECK(world.run("exec one sh -c 'echo $# $2' sh --state -- --help").out == "3 --\n");
    CHECK(CommandWorld::shell(CAISSON_COMMAND " exec one --state " + world.state().folder + " -- id -u").out == "0\n");
    CHECK(world.run("exec one -- sh -c 'echo $XENSTORED_PATH $CAISSON_HYPERVISOR'").out ==
          "/run/xen/xenstored.sock /run/caisson/hypervisor\n");
    CHECK(world.run("exec one -- ip -o link show up").out.find("lo:") != std::string::npos);
    CHECK(CommandWorld::shell("echo through | " CAISSON_COMMAND " --state " + world.state().folder + " exec one -- cat")
              .code == 0);
}

TEST_CASE("A domain sees nothing of the machine that it could change, and nothing of another domain") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    REQUIRE(world.run("create " + world.cfg("two", "")).code == 0);
    CHECK(world.run("exec one -- sh -c 'echo secret >/run/mine; sleep 1000 >/dev/null 2>&1 &'").code == 0);
    CHECK(world.run("exec two -- cat /run/mine").code == 1);
    CHECK(world.run("exec two -- sh -c 'ps ax | grep -c [s]leep'").out == "0\n");
    // The folder with Dom0's sockets, wherever it is.
    CHECK(world.run("exec one -- ls " + world.state().folder + "/dom0").code != 0);
    CHECK(world.run("exec one -- touch /etc/caisson-was-here").code != 0);
    CHECK(world.run("exec one -- sh -c 'echo x >> /run/caisson/caisson'").code != 0);
    CHECK(world.run("exec one -- ls -A /home").out.empty());
    CHECK(world.run("exec one -- sh -c 'mount -o remount,rw / || mount -o bind,remount,rw /'").code != 0);
    CHECK(world.run("exec one -- umount /home").code != 0);
    CHECK(world.run("exec one -- umount -l /proc").code != 0);
    CHECK(world.run("exec one -- touch /etc/caisson-was-here").code != 0);
    CHECK(world.run("exec one -- mknod /tmp/null c 1 3").code != 0);
    CHECK(world.run("exec one -- sh -c 'ls /proc | grep -c \"^[0-9]*$\"'").out.size() <=
          3);  // fewer than 100 processes
    CHECK(world.run("exec one -- kill -9 " + std::to_string(toolstack::hypervisor_process(world.state())->pid)).code !=
          0);
    CHECK(world.run("list").code == 0);
    // Signals of its own root do not reach PID 1, whose death is the domain's.
    CHECK(world.run("exec one -- kill -9 1").code == 0);
    CHECK(world.run("exec one -- true").code == 0);
}

TEST_CASE("A domain speaks to its own xenstored as itself") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    REQUIRE(world.run("create " + world.cfg("two", "")).code == 0);
    if (world.run("exec one -- sh -c 'command -v xenstore-read'").code != 0) {
        WARN("skipped: xenstore-utils is not installed");
        return;
    }
    CHECK(world.run("exec one -- xenstore-read name").out == "one\n");
    CHECK(world.run("exec two -- xenstore-read name").out == "two\n");
    CHECK(world.run("exec one -- xenstore-write data/mine yes").code == 0);
    CHECK(world.run("exec one -- xenstore-write name other").code != 0);
    const auto two = world.list().back()["id"].get<int>();
    CHECK(world.run("exec one -- xenstore-read /local/domain/" + std::to_string(two) + "/name").code != 0);
    CHECK(world.run("exec one -- xenstore-ls /libxl").code != 0);
}

TEST_CASE("A domain with caisson_run ends with it, its output in the log and its end in the list") {
    CommandWorld world;
    if (!world.possible()) return;
    const auto ran =
        world.run("create --foreground " + world.cfg("job", "caisson_run='echo hello from $(hostname); exit 5'\n"));
    CHECK(ran.code == 5);
    CHECK_THAT(ran.out, Catch::Contains("hello from job"));
    CHECK_THAT(world.run("log job").out, Catch::Contains("hello from job"));
    CHECK(world.list().size() == 1);
}

TEST_CASE("The log keeps the lives of a domain apart, with the time of each birth and death") {
    CommandWorld world;
    if (!world.possible()) return;
    const std::string cfg = world.cfg("job", "caisson_run='printf unended; exit 5'\n");
    const int first = world.run("create --foreground " + cfg).code,
              second = world.run("create --foreground " + cfg).code;
    CHECK((first == 5 && second == 5));
    const std::string log = world.run("log job").out;
    INFO(log);
    const std::regex line("[0-9-]{10}T[0-9:]{8}Z caisson: job \\(domain [0-9]+\\) (starts|ended with 5)");
    std::vector<std::string> notes;
    std::istringstream lines(log);
    std::smatch found;
    for (std::string text; std::getline(lines, text);)
        if (std::regex_match(text, found, line)) notes.push_back(found[1]);
    CHECK(notes == std::vector<std::string>{"starts", "ended with 5", "starts", "ended with 5"});
}

TEST_CASE("What a domain prints reaches whoever reads its log escaped") {
    CommandWorld world;
    if (!world.possible()) return;
    const std::string cfg = world.cfg("job", R"(caisson_run='printf "\\033[2Jhello \\303\\244\\303"')"
                                             "\n");
    CHECK(world.run("create --foreground " + cfg).code == 0);
    CHECK_THAT(world.run("log job").out, Catch::Contains("\\x1b[2Jhello \xc3\xa4\\xc3\n"));
}

TEST_CASE("create --wait says when the guest was over before it was ready") {
    CommandWorld world;
    if (!world.possible()) return;
    const auto ended = world.run("create --wait " + world.cfg("job", "vif=['']\ncaisson_run='exit 5'\n"));
    INFO(ended.out);
    CHECK(ended.code == 1);
    CHECK_THAT(ended.out, Catch::Contains("job ended before its devices were connected; 'caisson log job'"));
}

TEST_CASE("An interface that is to be configured and never appears is said in the log") {
    CommandWorld world;
    if (!world.possible()) return;
    const auto ran = world.run("create --foreground " +
                               world.cfg("job", "caisson_net=['dev=eth7,ip=10.0.0.2/32']\ncaisson_run='true'\n"));
    CHECK(ran.code == 0);
    CHECK_THAT(world.run("log job").out, Catch::Contains("no interface eth7 to configure (there is lo)"));
}

TEST_CASE("A name is one domain's, a name of a driver domain must be one") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    CHECK_THAT(world.run("create " + world.cfg("one", "")).out, Catch::Contains("a domain named one runs already"));
    REQUIRE(world.run("create " + world.cfg("driver", "driver_domain=1\n")).code == 0);
    CHECK_THAT(world.run("create " + world.cfg("two", "vif=['backend=ghost']\n")).out,
               Catch::Contains("two.cfg:4: vif: entry 1: the backend domain 'ghost' does not run (those that do: "
                               "Domain-0, driver)"));
    CHECK_THAT(world.run("create " + world.cfg("two", "vif=['backend=one']\n")).out,
               Catch::Contains("'one' is no driver domain"));
    CHECK(world.list().size() == 3);  // a domain that could not be made leaves nothing
    Store store = *Store::open(world.state().xenstored_socket());
    CHECK(store.list("/libxl")->size() == 2);
    CHECK(store.list("/vm")->size() == 2);
}

TEST_CASE("A vif that its backend could not tell from another domain's is refused, and both are named") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("driver", "driver_domain=1\n")).code == 0);
    REQUIRE(world.run("create " + world.cfg("other", "driver_domain=1\n")).code == 0);
    const std::string one = "vif=['backend=driver,ip=10.0.0.2,mac=00:16:3e:00:00:01']\n";
    REQUIRE(world.run("create " + world.cfg("one", one)).code == 0);
    const auto twin = world.run("create " + world.cfg("two", "vif=['','backend=driver,ip=10.0.0.1 10.0.0.2']\n"));
    CHECK(twin.code == 1);
    CHECK_THAT(twin.out, Catch::Contains("two.cfg:4: vif: entry 2: it and vif 0 of the domain 'one' have the address "
                                         "10.0.0.2, on one backend"));
    CHECK_THAT(world.run("create " + world.cfg("two", "vif=['backend=driver,mac=00:16:3e:00:00:01']\n")).out,
               Catch::Contains("have the MAC 00:16:3e:00:00:01"));
    CHECK(world.run("create " + world.cfg("two", "vif=['backend=other,ip=10.0.0.2']\n")).code == 0);
    REQUIRE(world.run("destroy one").code == 0);
    CHECK(world.run("create " + world.cfg("one", one)).code == 0);
}

TEST_CASE("A console that nobody would serve is refused when its domain is made") {
    CommandWorld world;
    if (!world.possible()) return;
    const auto refused = world.run("create " + world.cfg("one", "caisson_console_backend='0'\n"));
    CHECK(refused.code == 1);
    CHECK_THAT(refused.out, Catch::Contains("one.cfg:4: caisson_console_backend: Domain-0 serves no consoles"));
    CHECK_THAT(world.run("create " + world.cfg("one", "channel=['name=a,connection=pty']\n")).out,
               Catch::Contains("one.cfg:4: channel: entry 1: Domain-0 serves no consoles"));
    CHECK(world.list().size() == 1);
}

TEST_CASE("A domain that died by itself is taken out of xenstore, and made again if its file says so") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("once", "")).code == 0);
    REQUIRE(world.run("create " + world.cfg("again", "on_crash='restart'\n")).code == 0);
    const auto before = world.list();
    for (const auto& domain : before)
        if (domain["id"] != 0) ::kill(domain["pid"].get<pid_t>(), SIGKILL);
    nlohmann::json now;
    for (int i = 0; i < 1000; ++i) {
        now = world.list();
        if (now.size() == 2 && now[1]["name"] == "again" && now[1]["id"] != before[2]["id"]) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    REQUIRE(now.size() == 2);
    CHECK(now[1]["name"] == "again");
    CHECK(now[1]["generation"] != before[2]["generation"]);
    Store store = *Store::open(world.state().xenstored_socket());
    CHECK(store.list("/libxl")->size() == 1);
    CHECK(world.run("destroy again").code == 0);  // on purpose: not made again
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    CHECK(world.list().size() == 1);
}

TEST_CASE("xsa_322_xsa_419_many_lives_leave_nothing_behind") {
    CommandWorld world;
    if (!world.possible()) return;
    const pid_t hypervisor = toolstack::hypervisor_process(world.state())->pid;
    const std::string guest = world.cfg("guest", "vif=['backend=driver,ip=10.0.0.2']\n");
    REQUIRE(world.run("create " + world.cfg("driver", "driver_domain=1\n")).code == 0);
    REQUIRE(world.run("create --wait " + guest).code == 0);  // the driver domain's controllers have connected by now
    REQUIRE(world.run("destroy guest").code == 0);
    Store store = *Store::open(world.state().xenstored_socket());
    const auto nodes = nodes_below(store, "/");
    const auto descriptors = CommandWorld::descriptors(hypervisor);
    for (int i = 0; i < 40; ++i) {
        const auto made = world.run("create " + guest);
        INFO(i << ": " << made.out);
        REQUIRE(made.code == 0);
        REQUIRE(world.run("destroy guest").code == 0);
    }
    // What the driver domain itself writes at its own pace may come and go; what the guests had may not stay.
    std::vector<std::string> left;
    for (const auto& node : nodes_below(store, "/"))
        if (std::find(nodes.begin(), nodes.end(), node) == nodes.end() && node.find("/error") == std::string::npos)
            left.push_back(node);
    CHECK(left.empty());
    CHECK(CommandWorld::descriptors(hypervisor) <= descriptors + 2);
    CHECK(world.list().size() == 2);
    CHECK(std::filesystem::exists(world.state().records()));
    std::size_t records = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(world.state().records())) ++records;
    CHECK(records == 1);
}

TEST_CASE("A process that goes while it is looked at is nobody") {
    std::atomic<pid_t> child{0};
    std::atomic<bool> stop{false};
    std::thread mortals([&] {
        while (!stop) {
            const pid_t born = ::fork();
            if (born == 0) ::_exit(0);
            child = born;
            ::waitpid(born, nullptr, 0);
        }
    });
    CHECK_NOTHROW([&] {
        for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
             std::chrono::steady_clock::now() < end;)
            (void)toolstack::process(child);
    }());
    stop = true;
    mortals.join();
}

TEST_CASE("When the hypervisor dies its domains die with it") {
    CommandWorld world;
    if (!world.possible()) return;
    REQUIRE(world.run("create " + world.cfg("one", "")).code == 0);
    const auto init = world.list()[1]["pid"].get<pid_t>();
    ::kill(toolstack::hypervisor_process(world.state())->pid, SIGKILL);
    for (int i = 0; i < 1000 && toolstack::process(init); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK_FALSE(toolstack::process(init));
    CHECK(world.run("list").code == 5);
}
