// A sealed worker, armed and waiting for devices, inspected from outside.
#include <sys/wait.h>

#include <catch2/catch.hpp>

#include "domains/sandbox/sandbox.h"
#include "domains/worker/process.h"
#include "tests/support/echo_class.h"

using namespace caisson;
using namespace std::chrono_literals;

namespace {

struct Armed {
    std::unique_ptr<Loop> loop = *Loop::make();
    Log log{"test"};
    bool armed = false, died = false;
    std::unique_ptr<WorkerHandle> worker;

    Armed() {
        auto started = WorkerHandle::start(
            *loop, {}, "echo", Role::backend, log,
            {.armed = [this] { armed = true; }, .received = [](Mail) {}, .died = [this](bool) { died = true; }});
        REQUIRE(started);
        worker = std::move(*started);
        for (int i = 0; i < 2000 && !armed && !died; ++i) loop->turn(10ms);
    }
};

}  // namespace

TEST_CASE("an armed worker has a filter, no privileges, its own namespaces and only the declared descriptors") {
    Armed one;
    REQUIRE(one.armed);
    const auto seen = inspect(one.worker->pid());
    REQUIRE(seen);
    if (!sanitized) CHECK(seen->seccomp == 2);
    CHECK(seen->no_new_privileges);
    CHECK(seen->effective == 0);
    CHECK(seen->permitted == 0);
    CHECK(seen->inheritable == 0);
    CHECK(seen->ambient == 0);
    const std::vector<std::string> declared{"/dev/null", "/dev/null", "anon_inode:[eventfd]", "anon_inode:[io_uring]",
                                            "pipe",      "socket"};
    CHECK(seen->descriptors == declared);
    if (seen->own_namespaces == 0) {
        WARN("skipped: this kernel gives an unprivileged process no namespaces");
        return;
    }
    CHECK(seen->own_namespaces == all_namespaces);
    CHECK(seen->bounding == 0);
}

TEST_CASE("a process that is not sealed does not pass for one") {
    const auto ourselves = inspect(::getpid());
    REQUIRE(ourselves);
    CHECK_FALSE(verify(*ourselves, false));
    CHECK_FALSE(verify(*ourselves, true));

    const Inspection good{
        .seccomp = 2,
        .no_new_privileges = true,
        .descriptors = {"/dev/null", "/dev/null", "anon_inode:[eventfd]", "anon_inode:[io_uring]", "pipe", "socket"},
        .own_namespaces = all_namespaces};
    REQUIRE(verify(good, true));
    const auto spoiled = [&](auto&& spoil) {
        Inspection bad = good;
        spoil(bad);
        return !verify(bad, true).has_value();
    };
    if (!sanitized) CHECK(spoiled([](Inspection& i) { i.seccomp = 0; }));
    CHECK(spoiled([](Inspection& i) { i.no_new_privileges = false; }));
    CHECK(spoiled([](Inspection& i) { i.effective = 1; }));
    CHECK(spoiled([](Inspection& i) { i.permitted = 1; }));
    CHECK(spoiled([](Inspection& i) { i.bounding = 1; }));
    CHECK(spoiled([](Inspection& i) { i.ambient = 1; }));
    CHECK(spoiled([](Inspection& i) { i.own_namespaces = 6; }));
    CHECK(spoiled([](Inspection& i) { i.descriptors.push_back("socket"); }));
    CHECK(spoiled([](Inspection& i) { i.descriptors.pop_back(); }));
}

TEST_CASE("a worker ends with its controller") {
    pid_t pid = 0;
    {
        Armed one;
        REQUIRE(one.armed);
        pid = one.worker->pid();
    }
    CHECK(::waitid(P_PID, static_cast<id_t>(pid), nullptr, WEXITED | WNOHANG) == -1);  // gone and reaped
}
