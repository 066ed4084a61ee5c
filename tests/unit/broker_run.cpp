// The hypervisor as a program: its state directory, its one instance, its end; and what lasts when it is gone.
#include <fcntl.h>
#include <sys/wait.h>
#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>

#include "domains/hypervisor/run.h"
#include "tests/support/local_xen.h"
#include "tests/support/temporary.h"

namespace caisson {

using test::LocalXen;
using test::need;

namespace {

// A process that runs the hypervisor in a state directory of its own.
class Program {
  public:
    Program() {
        int ready[2];
        REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(ready[0]);
            const auto served = hypervisor::run_broker({.state = state, .ready_fd = ready[1]});
            ::_exit(served ? 0 : 1);
        }
        ::close(ready[1]);
        char line[256] = {};
        (void)!::read(ready[0], line, sizeof line - 1);
        ::close(ready[0]);
        said = line;
    }
    ~Program() {
        if (pid_ > 0) stop(SIGKILL);
    }
    int stop(int signal) {
        int status = 0;
        ::kill(pid_, signal);
        ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return status;
    }
    test::TemporaryFolder folder;
    std::string state = folder.path(), said;

  private:
    pid_t pid_ = -1;
};

}  // namespace

TEST_CASE("the hypervisor says when it is ready, serves Dom0, and leaves no socket behind") {
    Program program;
    CHECK(program.said == "hypervisor ready: " + program.state + "\n");
    auto control = need(local::Control::open(program.state + "/dom0/hypervisor"));
    const auto domains = need(control.list_domains());
    REQUIRE(domains.size() == 1);
    CHECK(domains[0].id == control_domain);
    const int status = program.stop(SIGTERM);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK_FALSE(std::filesystem::exists(program.state + "/dom0/hypervisor"));
    CHECK_FALSE(std::filesystem::exists(program.state + "/dom0/xenstored"));
}

TEST_CASE("a second hypervisor in the same state directory is refused and disturbs nothing") {
    Program program;
    const auto second = hypervisor::run_broker({.state = program.state});
    REQUIRE_FALSE(second);
    CHECK(second.error().err == EBUSY);
    CHECK(local::Control::open(program.state + "/dom0/hypervisor"));
}

TEST_CASE("after a hypervisor was killed the next one starts in the same state directory") {
    Program first;
    first.stop(SIGKILL);
    const pid_t next = ::fork();
    if (next == 0)
        ::_exit(hypervisor::run_broker({.state = first.state, .ready_fd = ::open("/dev/null", O_WRONLY)}) ? 0 : 1);
    bool answers = false;
    for (int i = 0; i < 5000 && !answers; ++i) {
        answers = local::Control::open(first.state + "/dom0/hypervisor").has_value();
        if (!answers) ::usleep(1000);
    }
    CHECK(answers);
    ::kill(next, SIGTERM);
    int status = 0;
    ::waitpid(next, &status, 0);
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("when the hypervisor is gone, rings and channels that exist go on, and calls fail at once") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    auto pages = need(front.hypervisor->share(back.id, 1, Access::read_write));
    auto mapped = need(back.hypervisor->map(front.id, pages.refs(), Access::read_write));
    auto port = need(front.hypervisor->allocate_unbound(back.id));
    auto end = need(back.hypervisor->bind_interdomain(front.id, port.port()));
    port.clear();
    xen.crash();
    REQUIRE(pages.memory().copy_in(0, std::as_bytes(std::span("alive"))));
    char seen[6];
    REQUIRE(mapped.memory().copy_out(0, std::as_writable_bytes(std::span(seen))));
    CHECK(std::string(seen) == "alive");
    CHECK_FALSE(front.hypervisor->share(back.id, 1, Access::read_write));
    CHECK(end.notify());
    CHECK(port.clear());
    CHECK(end.notify());
}

TEST_CASE("domains are listed with what they use, in pages of the protocol") {
    LocalXen xen;
    std::vector<LocalXen::Domain> domains;
    for (int i = 0; i < 70; ++i) domains.push_back(xen.domain());
    auto pages = need(domains[3].hypervisor->share(domains[4].id, 5, Access::read_write));
    auto mapped = need(domains[4].hypervisor->map(domains[3].id, pages.refs(), Access::read_write));
    auto port = need(domains[3].hypervisor->allocate_unbound(domains[4].id));
    const auto listed = need(xen.control().list_domains());
    CHECK(listed.size() == 71);
    CHECK(xen.info(domains[3].id).grants == 5);
    CHECK(xen.info(domains[3].id).regions == 1);
    CHECK(xen.info(domains[3].id).ports == 1);
    CHECK(xen.info(domains[4].id).mappings == 1);
    mapped = {};
    CHECK(xen.info(domains[4].id).mappings == 0);
}

}  // namespace caisson
