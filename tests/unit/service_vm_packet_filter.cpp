// A firewall domain's rules as the kernel took them: nft, which the image does not have, reads them back here.
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <string>

#include "domains/service_vm/packet_filter.h"

using namespace caisson;

namespace {

enum Outcome { told = 0, no_namespace = 1, no_nft = 2, refused = 3 };

// In a network of its own: the rules end with it. What nft says of them, or the error, goes to `pipe`.
[[noreturn]] void in_own_network(int pipe) {
    ::dup2(pipe, STDOUT_FILENO);
    if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) ::_exit(no_namespace);
    if (std::system("nft list ruleset >/dev/null 2>&1") != 0) ::_exit(no_nft);
    const Status done = service_vm::masquerade({"eth0", "eth1"});
    if (!done) (void)!::write(STDOUT_FILENO, done.error().message().data(), done.error().message().size());
    if (!done) ::_exit(refused);
    ::_exit(std::system("nft list ruleset") == 0 ? told : no_nft);
}

}  // namespace

TEST_CASE("a firewall domain forwards what its guests begin and what answers them, and nothing else") {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) in_own_network(ends[1]);
    ::close(ends[1]);
    std::string rules;
    char part[4096];
    for (ssize_t got; (got = ::read(ends[0], part, sizeof part)) > 0;)
        rules.append(part, static_cast<std::size_t>(got));
    ::close(ends[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == no_namespace || WEXITSTATUS(status) == no_nft) {
        WARN("skipped: no network namespace, no nft, or no nf_tables here");
        return;
    }
    INFO(rules);
    REQUIRE(WEXITSTATUS(status) == told);
    const auto at = [&](const char* words) { return rules.find(words); };
    CHECK(at("type filter hook forward priority filter; policy drop;") != std::string::npos);
    CHECK(at("ct state established,related accept") != std::string::npos);
    CHECK(at("iifname != \"eth0\" iifname != \"eth1\" oifname \"eth0\" accept") != std::string::npos);
    CHECK(at("iifname != \"eth0\" iifname != \"eth1\" oifname \"eth1\" accept") != std::string::npos);
    CHECK(at("type nat hook postrouting priority srcnat; policy accept;") != std::string::npos);
    CHECK(at("oifname \"eth0\" masquerade") != std::string::npos);
    std::size_t accepts = 0;
    for (auto one = at(" accept\n"); one != std::string::npos; one = rules.find(" accept\n", one + 1)) ++accepts;
    CHECK(accepts == 3);
}
