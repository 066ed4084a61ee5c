// `caisson supervise` with whole domains: killed, frozen, replaced, and not to be made.
#include <signal.h>
#include <sys/wait.h>

#include <thread>

#include "ring/store.h"
#include "tests/unit/command_world.h"

using namespace caisson;
using caisson::test::CommandWorld;
using namespace std::chrono_literals;

namespace {

// A disk image that outlives the driver domain, which a supervisor keeps.
struct Supervised : CommandWorld {
    Supervised() {
        std::filesystem::permissions(folder(), std::filesystem::perms(0711));
        std::filesystem::create_directory(images);
        std::ofstream(images + "/a.img").flush();
        std::filesystem::resize_file(images + "/a.img", 4 << 20);
        std::filesystem::permissions(images + "/a.img", std::filesystem::perms(0666));
    }
    ~Supervised() { end(SIGTERM); }
    // Its exit code.
    int end(int signal = 0) {
        if (supervisor_ <= 0) return -1;
        if (signal != 0) ::kill(supervisor_, signal);
        int status = 0;
        ::waitpid(std::exchange(supervisor_, 0), &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    // No heart stands still for an hour: only the case that is about it has a shorter patience.
    void supervise(const std::string& files, const std::string& heart = "3600") {
        supervisor_ = ::fork();
        if (supervisor_ == 0) {
            const std::string line = std::string("exec ") + CAISSON_COMMAND + " --state " + state().folder +
                                     " supervise --steady 0 --start 3600 --heart " + heart + " " + files + " >" +
                                     folder() + "/log 2>&1";
            ::execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
            ::_exit(127);
        }
        REQUIRE(supervisor_ > 0);
    }
    std::string about(const std::string& key) const {
        auto store = Store::open(state().xenstored_socket());
        return store ? store->read("/tool/caisson/supervise/storage/" + key)->value_or("") : "";
    }
    // Within a time that only a hang exceeds.
    bool comes(const std::string& key, const std::string& value) const {
        for (int i = 0; i < 6000; ++i, std::this_thread::sleep_for(10ms))
            if (about(key) == value && about("state") == "ready") return true;
        return false;
    }
    pid_t init() const {
        for (const auto& domain : list())
            if (domain["name"] == "storage") return domain["pid"].get<pid_t>();
        return 0;
    }
    std::string log() const {
        std::ifstream in(folder() + "/log");
        return {std::istreambuf_iterator<char>(in), {}};
    }
    std::string storage() const { return cfg("storage", "driver_domain=1\ncaisson_bind=['" + images + "']\n"); }

    std::string images = folder() + "/images";

  private:
    pid_t supervisor_ = 0;
};

}  // namespace

TEST_CASE("A driver domain that is killed again and again is made again, and its guest's disk loses nothing") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage());
    REQUIRE(world.comes("restarts", "0"));
    const auto guest = world.run(
        "create --wait " +
        world.cfg("guest", "disk=['vdev=xvda,access=rw,backend=storage,target=" + world.images + "/a.img']\n"));
    INFO(guest.out);
    REQUIRE(guest.code == 0);
    // Before it is there, dd would make an ordinary file in its place.
    REQUIRE(world.run("exec guest sh -c 'until [ -s /dev/xvda ]; do sleep 0.05; done'").code == 0);
    for (int kills = 1; kills <= 5; ++kills) {
        const std::string part = std::to_string(kills);
        std::thread killer([&] { ::kill(world.init(), SIGKILL); });
        const auto wrote = world.run("exec guest sh -c 'for i in 0 1 2 3 4 5 6 7; do printf \"%0512d\" " + part +
                                     "$i | dd of=/dev/xvda bs=512 seek=$((i * 100 + " + part +
                                     ")) conv=notrunc,fsync 2>&1 || exit 1; done'");
        killer.join();
        INFO(wrote.out << world.log());
        CHECK(wrote.code == 0);
        CHECK(world.comes("restarts", part));
    }
    const auto read = world.run(
        "exec guest sh -c 'for k in 1 2 3 4 5; do for i in 0 1 2 3 4 5 6 7; do dd if=/dev/xvda bs=512 "
        "skip=$((i * 100 + k)) count=1 2>/dev/null | grep -q \"^0*$k$i\" || echo lost $k $i; done; done'");
    CHECK(read.out == "");
}

TEST_CASE("A driver domain whose controller stands still is replaced") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage(), "5");
    REQUIRE(world.comes("restarts", "0"));
    const auto stopped = world.run(
        "exec storage sh -c 'for p in /proc/[0-9]*; do case \"$(tr \"\\0\" \" \" <$p/cmdline)\" in "
        "\"/run/caisson/caisson devd \"*) kill -STOP ${p#/proc/};; esac; done'");
    REQUIRE(stopped.code == 0);
    for (int i = 0; i < 6000 && world.log().find("is ready again") == std::string::npos; ++i)
        std::this_thread::sleep_for(10ms);
    CHECK_THAT(world.log(), Catch::Contains("its heart has stood still for 5 s: it is made again") &&
                                Catch::Contains("is ready again"));
}

TEST_CASE(
    "A driver domain is replaced when that is asked for, and gets its old settings back where new ones are none") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage());
    REQUIRE(world.comes("restarts", "0"));
    CHECK(world.run("restart --wait storage").code == 0);
    CHECK(world.about("restarts") == "1");
    CHECK(world.run("restart --wait storage memory=32").code == 0);
    CHECK(world.about("settings") == "memory=32\n");
    CHECK(world.list().back()["memory"] == 32);

    // What is wrong on its face is told before anything happens; what shows only when it is made is taken back.
    const auto wrong = world.run("restart --wait storage \"memory='nonsense'\"");
    CHECK(wrong.code == 1);
    CHECK_THAT(wrong.out, Catch::Contains("goes on as it is") && Catch::Contains("memory"));
    CHECK(world.about("restarts") == "2");
    const auto gone = world.run("restart --wait storage \"caisson_bind=['/no/such/folder']\"");
    INFO(gone.out);
    CHECK(gone.code == 1);
    CHECK_THAT(gone.out, Catch::Contains("not with these settings") && Catch::Contains("/no/such/folder"));
    CHECK(world.list().back()["memory"] == 32);
    CHECK_THAT(world.log(), Catch::Contains("back to the old ones") && !Catch::Contains("it is made again in"));
    const auto partly = world.run("restart --wait storage memory=32 \"caisson_bind=['/no/such/folder']\"");
    INFO(partly.out);
    CHECK(partly.code == 1);

    CHECK(world.run("restart storage nonsense").code == 2);
    CHECK(world.run("restart storage/../storage").code == 3);
    const auto ghost = world.run("restart ghost");
    CHECK(ghost.code == 3);
    CHECK_THAT(ghost.out, Catch::Contains("nobody looks after a domain 'ghost'"));
    CHECK_THAT(world.run("supervise " + world.storage()).out, Catch::Contains("is supervised already, by process"));
}

TEST_CASE("A supervisor keeps what a restart gave to the domain before it came") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage());
    REQUIRE(world.comes("restarts", "0"));
    CHECK(world.run("restart --wait storage memory=32").code == 0);
    CHECK(world.end(SIGTERM) == 0);
    CHECK_THAT(world.run("restart storage").out, Catch::Contains("nobody looks after a domain 'storage'"));
    // A process of that number is not the supervisor, if it was not there then.
    {
        auto store = Store::open(world.state().xenstored_socket());
        REQUIRE(store);
        CHECK(store->write("/tool/caisson/supervise/storage/supervisor", std::to_string(::getpid()) + " 1"));
    }
    CHECK_THAT(world.run("restart storage").out, Catch::Contains("nobody looks after a domain 'storage'"));
    world.supervise(world.storage());
    REQUIRE(world.comes("settings", "memory=32\n"));
    CHECK(world.run("restart --wait storage").code == 0);
    CHECK(world.list().back()["memory"] == 32);
}

TEST_CASE("A driver domain whose file has become wrong goes on as it is when it is to be replaced") {
    Supervised world;
    if (!world.possible()) return;
    const std::string file = world.storage();
    world.supervise(file);
    REQUIRE(world.comes("restarts", "0"));
    std::ofstream(file, std::ios::app) << "memory='nonsense'\n";
    const auto wrong = world.run("restart --wait storage");
    CHECK(wrong.code == 1);
    CHECK_THAT(wrong.out, Catch::Contains("memory") && Catch::Contains("goes on as it is"));
    CHECK(world.about("restarts") == "0");
}

TEST_CASE("What a driver domain says of its failure is cut short, and escaped once") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage());
    REQUIRE(world.comes("restarts", "0"));
    auto store = Store::open(world.state().xenstored_socket());
    REQUIRE(store);
    const std::string service = "/local/domain/" + world.about("domid") + "/data/service/";
    CHECK(store->write(service + "why", std::string(1900, '\x1b')));
    CHECK(store->write(service + "state", "failed"));
    CHECK(world.comes("restarts", "1"));
    CHECK_THAT(world.about("why"), Catch::Contains("it failed: \\x1b\\x1b") && !Catch::Contains("x5c"));
    CHECK(world.about("why").size() < 1500);
    CHECK(world.log().size() < 3000);
}

TEST_CASE("A successor that is ready and refuses a device is told of") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage());
    REQUIRE(world.comes("restarts", "0"));
    const auto guest = world.run(
        "create --wait " +
        world.cfg("guest", "disk=['vdev=xvda,access=rw,backend=storage,target=" + world.images + "/a.img']\n"));
    INFO(guest.out);
    REQUIRE(guest.code == 0);
    std::filesystem::rename(world.images + "/a.img", world.images + "/elsewhere");
    const auto refused = world.run("restart --wait storage");
    CHECK(refused.code == 1);
    CHECK_THAT(refused.out, Catch::Contains("storage is ready, but vbd 51712 of domain ") &&
                                Catch::Contains("does not connect: ") && Catch::Contains("a.img"));
    std::filesystem::rename(world.images + "/elsewhere", world.images + "/a.img");
    const auto served = world.run("restart --wait storage");
    INFO(served.out);
    CHECK(served.code == 0);
}

TEST_CASE("A supervisor whose xenstored is gone ends, and says so") {
    Supervised world;
    if (!world.possible()) return;
    world.supervise(world.storage());
    REQUIRE(world.comes("restarts", "0"));
    CHECK(world.run("shutdown").code == 0);
    CHECK(world.end() == 1);
    CHECK_THAT(world.log(), Catch::Contains("lost the connection to"));
}

TEST_CASE("A supervisor that is refused leaves no trace at the domains that were free") {
    Supervised world;
    if (!world.possible()) return;
    const std::string free = world.cfg("free", "driver_domain=1\n");
    CHECK(world.run("supervise " + free + " " + free).code == 1);
    CHECK_THAT(world.run("restart free").out, Catch::Contains("nobody looks after a domain 'free'"));
    auto store = Store::open(world.state().xenstored_socket());
    REQUIRE(store);
    CHECK_FALSE(store->read("/tool/caisson/supervise/free/supervisor")->has_value());
}

TEST_CASE("What is not to be made is said, with the reason, and tried again less and less often") {
    Supervised world;
    world.supervise(world.cfg("storage", "driver_domain=1\ncaisson_forward='maybe'\n"));
    for (int i = 0; i < 6000 && world.log().find("3 times in a row") == std::string::npos; ++i)
        std::this_thread::sleep_for(10ms);
    CHECK_THAT(world.log(), Catch::Contains("it is not made: ") && Catch::Contains("caisson_forward") &&
                                Catch::Contains("; it is made again in 1 s") &&
                                Catch::Contains("3 times in a row it did not last: it is made again in 4 s"));
    CHECK(world.about("state") == "waiting");
    CHECK_THAT(world.run("supervise " + world.cfg("nameless", "name=''\n")).out,
               Catch::Contains("has no name= that could be"));
}
