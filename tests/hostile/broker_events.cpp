// A peer that has its ends of an event channel and uses every call on them that it should not.
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <catch2/catch.hpp>

#include <atomic>
#include <thread>

#include "tests/support/local_xen.h"

namespace caisson {

using test::LocalXen;
using test::need;

namespace {

struct Bound {
    EventChannel victim, attacker;
};

Bound bind(LocalXen::Domain& victim, LocalXen::Domain& attacker) {
    Bound both;
    both.victim = need(victim.hypervisor->allocate_unbound(attacker.id));
    both.attacker = need(attacker.hypervisor->bind_interdomain(victim.id, both.victim.port()));
    return both;
}

bool readable(const EventChannel& channel) {
    pollfd waiting{.fd = channel.wait_fd(), .events = POLLIN, .revents = 0};
    return ::poll(&waiting, 1, 0) == 1 && (waiting.revents & POLLIN) != 0;
}

Fd reopened(int fd, int mode) { return Fd(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), mode | O_CLOEXEC)); }

void fill(int fd) {
    const std::vector<char> bytes(4096, 'x');
    while (::write(fd, bytes.data(), bytes.size()) > 0) {
    }
}

}  // namespace

TEST_CASE("d4_f_setfl_and_a_full_pipe: the victim's notify cannot be made to block") {
    LocalXen xen;
    auto victim = xen.domain(), attacker = xen.domain();
    Bound both = bind(victim, attacker);
    // The attacker fills the victim's outbox through a description of its own, and clears O_NONBLOCK on all it has.
    const Fd outbox = reopened(both.attacker.wait_fd(), O_WRONLY | O_NONBLOCK);
    REQUIRE(outbox);
    fill(outbox.get());
    fill(both.attacker.notify_fd());
    for (int fd : {both.attacker.wait_fd(), both.attacker.notify_fd(), outbox.get()}) {
        int off = 0;
        (void)::fcntl(fd, F_SETFL, 0);
        (void)::ioctl(fd, FIONBIO, &off);
    }
    CHECK((::fcntl(both.victim.notify_fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(both.victim.wait_fd(), F_GETFL) & O_NONBLOCK) != 0);
    for (int i = 0; i < 1000; ++i) CHECK(both.victim.notify());
    while (readable(both.victim)) CHECK(both.victim.clear());
    CHECK_FALSE(both.victim.clear());

    // Nor the broker: a close and a new bind write into the same pipes.
    victim.hypervisor->close(std::move(both.victim));
    both.victim = need(victim.hypervisor->bind_interdomain(attacker.id, both.attacker.port()));
    CHECK(both.victim.notify());
    CHECK(xen.info(victim.id).ports == 1);
}

TEST_CASE("d4_before_the_bind: whoever allocated a port cannot make the broker block in it") {
    LocalXen xen;
    auto attacker = xen.domain(), victim = xen.domain();
    auto port = need(attacker.hypervisor->allocate_unbound(victim.id));
    fill(port.notify_fd());
    (void)::fcntl(port.notify_fd(), F_SETFL, 0);
    (void)::fcntl(port.wait_fd(), F_SETFL, 0);
    const Fd inbox = reopened(port.wait_fd(), O_WRONLY | O_NONBLOCK);
    fill(inbox.get());
    auto end = need(victim.hypervisor->bind_interdomain(attacker.id, port.port()));
    CHECK(end.clear());
    CHECK(end.notify());
}

TEST_CASE("a pipe that the peer enlarges or feeds without end costs bounded work at each clear") {
    LocalXen xen;
    auto victim = xen.domain(), attacker = xen.domain();
    Bound both = bind(victim, attacker);
    both.victim.clear();
    (void)::fcntl(both.attacker.notify_fd(), F_SETPIPE_SZ, 1 << 20);
    (void)::fcntl(both.attacker.notify_fd(), F_SETFL, O_NONBLOCK | O_DIRECT);
    fill(both.attacker.notify_fd());
    int clears = 0;
    while (both.victim.clear()) ++clears;
    CHECK(clears >= 1);
    CHECK(clears <= 257);  // one packet each at worst, never more than the pipe holds
}

TEST_CASE("xsa_496_a bind that fails for want of ports changes nothing anywhere") {
    LocalXen xen({.ports = 16});
    auto poor = xen.domain(), rich = xen.domain();
    std::vector<EventChannel> held, offered;
    for (int i = 0; i < 8; ++i) offered.push_back(need(rich.hypervisor->allocate_unbound(poor.id)));
    while (auto port = poor.hypervisor->allocate_unbound(rich.id)) held.push_back(std::move(*port));
    REQUIRE(held.size() == 16);
    for (int round = 0; round < 50; ++round)
        for (const EventChannel& port : offered) {
            const auto refused = poor.hypervisor->bind_interdomain(rich.id, port.port());
            REQUIRE_FALSE(refused);
            CHECK(refused.error().err == ENOSPC);
        }
    for (const EventChannel& port : offered) CHECK_FALSE(readable(port));
    CHECK(xen.info(rich.id).ports == 8);
    auto another = xen.domain();
    CHECK(another.hypervisor->allocate_unbound(rich.id));

    poor.hypervisor->close(std::move(held.back()));
    auto end = need(poor.hypervisor->bind_interdomain(rich.id, offered[3].port()));
    CHECK(readable(end));
    CHECK(end.notify());
    CHECK(readable(offered[3]));
}

TEST_CASE("xsa_343_and_331: ports are closed and bound anew from both ends under load, and none is lost") {
    LocalXen xen;
    auto a = xen.domain(), b = xen.domain();
    std::atomic<std::uint32_t> offered{0};
    std::atomic<bool> over{false};
    std::thread binder([&] {
        while (!over) {
            auto end = b.hypervisor->bind_interdomain(a.id, Port(offered.load()));
            if (!end) continue;
            for (int i = 0; i < 8; ++i) {
                (void)end->notify();
                (void)end->clear();
            }
            b.hypervisor->close(std::move(*end));
        }
    });
    for (int round = 0; round < 1500; ++round) {
        auto port = need(a.hypervisor->allocate_unbound(b.id));
        offered = port.port().raw;
        for (int i = 0; i < 8; ++i) {
            (void)port.notify();
            (void)port.clear();
        }
        a.hypervisor->close(std::move(port));
    }
    over = true;
    binder.join();
    CHECK(xen.info(a.id).ports == 0);
    b.hypervisor.reset();
    for (int i = 0; i < 1000 && xen.info(b.id).ports > 0; ++i) ::usleep(1000);
    CHECK(xen.info(b.id).ports == 0);
}

}  // namespace caisson
