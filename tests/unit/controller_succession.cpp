// A controller that is killed, with its workers, and the next one.
#include <sys/prctl.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>

#include "tests/support/controller_rig.h"

using namespace caisson;
using namespace caisson::test;

namespace {

// `test_unit controller ROLE HYPERVISOR XENSTORED`: what `caisson devd` and `caisson frontd` are, with the echo class.
const bool registered = add_child("controller", [](int argc, char** argv) {
    if (argc != 5) return 2;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string role = argv[2];
    const Status done = run_controller({.backends = role == "back",
                                        .frontends = role == "front",
                                        .catalogue = echo_catalogue(),
                                        .hypervisor_socket = argv[3],
                                        .xenstored_socket = argv[4],
                                        .stats_directory = std::filesystem::path(argv[3]).parent_path() / "stats"});
    if (done) return 0;
    const std::string why = done.error().message();
    const auto names = [&](const char* whom) { return why.find("lost the connection to " + std::string(whom)) == 0; };
    return names("xenstored at ") ? 3 : names("the hypervisor at ") ? 4 : 1;
});

class ControllerProcess {
  public:
    ControllerProcess(const LocalXen::Domain& domain, const std::string& role)
        : strings_{"test", "controller", role, domain.hypervisor_socket, domain.xenstored} {
        std::vector<char*> arguments;
        for (std::string& one : strings_) arguments.push_back(one.data());
        arguments.push_back(nullptr);
        pid_ = ::vfork();
        if (pid_ == 0) {
            ::execv("/proc/self/exe", arguments.data());
            ::_exit(127);
        }
    }
    ~ControllerProcess() { end(SIGKILL); }
    int end(int signal) {
        if (pid_ <= 0) return -1;
        ::kill(pid_, signal);
        return wait();
    }
    int wait() {
        int status = 0;
        ::waitpid(std::exchange(pid_, -1), &status, 0);
        return status;
    }

  private:
    std::vector<std::string> strings_;
    pid_t pid_ = -1;
};

}  // namespace

TEST_CASE("a killed controller takes its workers with it, and its successor serves the same devices") {
    LocalXen xen;
    const auto back = xen.domain(), front = xen.domain();
    Toolstack toolstack(xen);
    std::optional<ControllerProcess> devd(std::in_place, back, "back"), frontd(std::in_place, front, "front");
    toolstack.attach(back.id, front.id, 0);
    REQUIRE(eventually([&] { return toolstack.connected(back.id, front.id, 0); }));
    const std::string page = std::filesystem::path(back.hypervisor_socket).parent_path() / "stats/echo-backend-";
    const auto served = [&] {
        const Fd file(::open((page + std::to_string(front.id.raw) + "-0").c_str(), O_RDONLY));
        void* map = ::mmap(nullptr, sizeof(DeviceStats), PROT_READ, MAP_SHARED, file.get(), 0);
        if (map == MAP_FAILED) return std::uint64_t{0};
        const auto count = static_cast<const DeviceStats*>(map)->queue[0].requests.get();
        ::munmap(map, sizeof(DeviceStats));
        return count;
    };
    REQUIRE(eventually([&] { return served() > 5; }));

    SECTION("the backend's") {
        devd->end(SIGKILL);
        devd.emplace(back, "back");
        CHECK(eventually([&] { return served() > 5 && toolstack.connected(back.id, front.id, 0); }));
    }
    SECTION("the frontend's") {
        frontd->end(SIGKILL);
        CHECK(eventually([&] { return xen.info(front.id).connections == 1; }));
        frontd.emplace(front, "front");
        const auto before = served();
        CHECK(eventually([&] { return served() > before + 5 && toolstack.connected(back.id, front.id, 0); }));
    }
    SECTION("ended in order, it leaves Closed behind and nothing else") {
        CHECK(devd->end(SIGTERM) == 0);
        CHECK(toolstack.read(Toolstack::back(back.id, front.id, 0) + "/state") == "6");
        CHECK(xen.info(back.id).mappings == 0);
        CHECK(xen.info(back.id).ports == 0);
    }
}

TEST_CASE("a controller whose xenstored or hypervisor goes away ends with an error that names it") {
    LocalXen xen, other;
    auto own = xen.domain(), elsewhere = other.domain();
    REQUIRE(own.id == elsewhere.id);
    auto mixed = xen.domain();
    const bool store = GENERATE(true, false);
    (store ? mixed.xenstored : mixed.hypervisor_socket) = store ? elsewhere.xenstored : elsewhere.hypervisor_socket;
    ControllerProcess devd(mixed, "back");
    // It watches by now: its statistics folder is made before it connects, its watches show in the store's answers
    // only.
    const auto connections = [&] {
        return store ? xen.info(mixed.id).connections : other.info(elsewhere.id).connections;
    };
    REQUIRE(eventually([&] { return connections() == 2; }));
    std::this_thread::sleep_for(100ms);
    other.crash();
    const int status = devd.wait();
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == (store ? 3 : 4));
}
