// Who somebody is, after he died: numbers come back, rights do not.
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <catch2/catch.hpp>

#include <csignal>
#include <thread>

#include "domains/hypervisor/hypercalls.h"
#include "tests/support/local_xen.h"

namespace caisson {

using hypervisor::DomainKey;
using test::LocalXen;
using test::need;

namespace {

// Dom0 with its hands on the calls themselves: thirty thousand domains in a second.
struct Machine {
    hypervisor::Hypercalls calls{need(hypervisor::OwnDescriptors::open()), {}};
    hypervisor::ConnectionId dom0 = need(calls.connect(*calls.current(control_domain)));

    DomainKey create() {
        std::vector<Fd> listeners;
        listeners.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
        listeners.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
        local::CreateRequest request{};
        request.head.op = static_cast<std::uint32_t>(local::Op::create_domain);
        auto answer = calls.handle(dom0, local::bytes_of(request), std::move(listeners));
        if (!answer.created) throw std::runtime_error("no domain");
        return answer.created->key;
    }
    template <Wire Message>
    int call(hypervisor::ConnectionId from, local::Op op, Message request) {
        request.head.op = static_cast<std::uint32_t>(op);
        local::Reply reply{};
        const auto answer = calls.handle(from, local::bytes_of(request), {});
        if (answer.bytes.size() < sizeof reply) return -1;
        std::memcpy(&reply, answer.bytes.data(), sizeof reply);
        return reply.err;
    }
};

// A child as PID 1 of a domain.
struct Process {
    pid_t pid;
    Fd handle;
    Process() : pid(::fork()) {
        if (pid == 0)
            while (true) ::pause();
        handle.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
        REQUIRE(handle);
    }
    ~Process() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
};

template <class Question>
bool becomes_true(Question question) {
    for (int i = 0; i < 5000; ++i) {
        if (question()) return true;
        ::usleep(1000);
    }
    return false;
}

}  // namespace

TEST_CASE("xsa_322_a domain id that comes back inherits no grant, no port and no connection") {
    Machine machine;
    const DomainKey back = machine.create();
    const auto back_connection = need(machine.calls.connect(back));
    const DomainKey first = machine.create();
    const auto dead_connection = need(machine.calls.connect(first));
    REQUIRE(machine.call(back_connection, local::Op::share,
                         local::ShareRequest{.head = {}, .peer = first.id.raw, .read_only = 0, .pages = 1}) == 0);
    REQUIRE(machine.call(back_connection, local::Op::allocate_unbound,
                         local::PeerRequest{.head = {}, .peer = first.id.raw, .zero = {}}) == 0);
    const local::FetchRequest fetch{.head = {}, .peer = back.id.raw, .zero = 0, .ref = hypervisor::first_grant};
    REQUIRE(machine.call(dead_connection, local::Op::fetch, fetch) == 0);

    machine.calls.release(first);
    DomainKey next{};
    for (int i = 0; i < 0x8000; ++i) {  // all numbers once round
        next = machine.create();
        if (next.id == first.id) break;
        machine.calls.release(next);
    }
    REQUIRE(next.id == first.id);
    REQUIRE(next.generation != first.generation);
    const auto connection = need(machine.calls.connect(next));

    CHECK(machine.call(connection, local::Op::fetch, fetch) == ENOENT);
    CHECK(machine.call(connection, local::Op::status,
                       local::PeerRequest{.head = {}, .peer = back.id.raw, .zero = {}}) == ENOENT);
    local::MapRequest map{};
    map.peer = back.id.raw;
    map.count = 1;
    map.refs[0] = hypervisor::first_grant;
    CHECK(machine.call(connection, local::Op::map, map) == ENOENT);
    CHECK(machine.call(connection, local::Op::bind_interdomain,
                       local::BindRequest{.head = {}, .peer = back.id.raw, .zero = 0, .port = 1}) == EINVAL);
    CHECK(machine.call(dead_connection, local::Op::fetch, fetch) == -1);
    CHECK_FALSE(machine.calls.connect(first));
    CHECK(machine.calls.grants().exact());
}

TEST_CASE("ids are not used again before all others were") {
    Machine machine;
    const DomainKey one = machine.create();
    machine.calls.release(one);
    const DomainKey two = machine.create();
    CHECK(two.id.raw == one.id.raw + 1);
    CHECK(two.generation > one.generation);
}

TEST_CASE("a restricted connection does not reach the successor of its peer") {
    Machine machine;
    const DomainKey self = machine.create(), peer = machine.create();
    const auto connection = need(machine.calls.connect(self));
    local::RestrictRequest request{};
    request.head.op = static_cast<std::uint32_t>(local::Op::restrict_to);
    request.count = 1;
    request.peers[0] = peer.id.raw;
    auto answer = machine.calls.handle(connection, local::bytes_of(request), {});
    REQUIRE(answer.restricted);
    const auto restricted = answer.restricted->id;
    const local::ShareRequest share{.head = {}, .peer = peer.id.raw, .read_only = 0, .pages = 1};
    CHECK(machine.call(restricted, local::Op::share, share) == 0);
    machine.calls.release(peer);
    DomainKey next{};
    while (next.id != peer.id) {
        next = machine.create();
        if (next.id != peer.id) machine.calls.release(next);
    }
    CHECK(machine.call(restricted, local::Op::share, share) == EPERM);
}

TEST_CASE("d4_forked_survivor: what outlives its domain can do nothing with what it kept") {
    LocalXen xen;
    auto victim = xen.domain(), dead = xen.domain();
    auto pages = need(victim.hypervisor->share(dead.id, 1, Access::read_write));
    auto mapped = need(dead.hypervisor->map(victim.id, pages.refs(), Access::read_write));
    auto port = need(victim.hypervisor->allocate_unbound(dead.id));
    auto end = need(dead.hypervisor->bind_interdomain(victim.id, port.port()));
    auto restricted = need(dead.hypervisor->restrict_to(std::vector{victim.id}));
    xen.destroy(dead);

    // Its memory is out of use: the victim's next pages are other ones.
    CHECK(need(pages.end()) == End::ended);
    REQUIRE(mapped.memory().copy_in(0, std::as_bytes(std::span("stale"))));
    auto next = xen.domain();
    auto fresh = need(victim.hypervisor->share(next.id, 1, Access::read_write));
    std::byte first[1];
    REQUIRE(fresh.memory().copy_out(0, first));
    CHECK(first[0] == std::byte{});
    // Its channel wakes the old port at most, which nobody else can be bound to.
    (void)end.notify();
    CHECK_FALSE(next.hypervisor->bind_interdomain(victim.id, port.port()));
    CHECK_FALSE(dead.hypervisor->share(victim.id, 1, Access::read_write));
    CHECK_FALSE(local::open_restricted(std::move(restricted)));
    CHECK_FALSE(local::open(dead.hypervisor_socket));
}

TEST_CASE("xsa_371_a domain whose first process dies is released, whatever it was doing") {
    LocalXen xen;
    auto back = xen.domain();
    for (int round = 0; round < 10; ++round) {
        Process process;
        auto front = xen.domain(process.handle.get());
        auto pages = need(front.hypervisor->share(back.id, 2, Access::read_write));
        auto theirs = need(back.hypervisor->share(front.id, 1, Access::read_write));
        auto mapped = need(front.hypervisor->map(back.id, theirs.refs(), Access::read_write));
        auto port = need(front.hypervisor->allocate_unbound(back.id));
        auto end = need(back.hypervisor->bind_interdomain(front.id, port.port()));
        CHECK(need(theirs.end()) == End::still_mapped);
        ::kill(process.pid, SIGKILL);
        REQUIRE(becomes_true([&] { return xen.info(front.id).generation == 0; }));
        CHECK(need(theirs.end()) == End::ended);
        CHECK_FALSE(back.hypervisor->map(front.id, pages.refs(), Access::read_only));
        back.hypervisor->close(std::move(end));
    }
    const auto left = xen.info(back.id);
    CHECK(left.grants == 0);
    CHECK(left.mappings == 0);
    CHECK(left.ports == 0);
    CHECK(left.connections == 1);
}

TEST_CASE("xsa_325_destroy: a domain is gone when its processes are, not before") {
    LocalXen xen;
    Process process;
    auto victim = xen.domain();
    auto front = xen.domain(process.handle.get());
    xen.destroy(front);
    REQUIRE(becomes_true([&] { return xen.info(front.id).generation == 0; }));
    CHECK_FALSE(xen.control().destroy_domain(front.id));
    CHECK_FALSE(xen.control().destroy_domain(control_domain));
    CHECK(xen.info(victim.id).generation == victim.generation);
}

TEST_CASE("xsa_233_two domains that hold each other's things are destroyed in either order") {
    for (bool front_first : {true, false}) {
        LocalXen xen;
        auto front = xen.domain(), back = xen.domain();
        auto a = need(front.hypervisor->share(back.id, 1, Access::read_write));
        auto b = need(back.hypervisor->share(front.id, 1, Access::read_write));
        auto c = need(front.hypervisor->map(back.id, b.refs(), Access::read_write));
        auto d = need(back.hypervisor->map(front.id, a.refs(), Access::read_write));
        auto port = need(front.hypervisor->allocate_unbound(back.id));
        auto end = need(back.hypervisor->bind_interdomain(front.id, port.port()));
        xen.destroy(front_first ? front : back);
        xen.destroy(front_first ? back : front);
        xen.stop();
        CHECK(xen.broker().hypercalls().grants().exact());
        CHECK(xen.broker().hypercalls().grants().regions() == 0);
        CHECK(xen.broker().hypercalls().events().ports() == 0);
        CHECK(xen.broker().store().exact());
    }
}

TEST_CASE("xsa_350_connections that come and go under load leave nothing behind") {
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    const auto churn = [&](const LocalXen::Domain& self, DomainId peer) {
        for (int round = 0; round < 300; ++round) {
            auto port = local::open(self.hypervisor_socket);
            if (!port) continue;
            auto pages = (*port)->share(peer, 1 + static_cast<std::uint32_t>(round % 5),
                                        round % 2 == 0 ? Access::read_only : Access::read_write);
            std::vector<GrantRef> guess;
            for (std::uint32_t ref = 8; ref < 12; ++ref) guess.emplace_back(ref);
            auto mapped = (*port)->map(peer, std::span(guess).first(1), Access::read_only);
            GrantStatus status{};
            (void)(*port)->view({peer, guess[1], 0, 4}, Access::read_only, status);
            auto channel = (*port)->allocate_unbound(peer);
            auto other = (*port)->bind_interdomain(peer, Port(1));
        }
    };
    std::thread one([&] { churn(front, back.id); }), two([&] { churn(back, front.id); });
    one.join();
    two.join();
    REQUIRE(becomes_true([&] { return xen.info(front.id).connections == 1 && xen.info(back.id).connections == 1; }));
    for (DomainId id : {front.id, back.id}) {
        const auto left = xen.info(id);
        CHECK(left.grants == 0);
        CHECK(left.mappings == 0);
        CHECK(left.ports == 0);
    }
    xen.stop();
    CHECK(xen.broker().hypercalls().grants().exact());
}

}  // namespace caisson
