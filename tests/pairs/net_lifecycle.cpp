// A net device over its life: link, filter, reconnects, and workers killed with kill -9 while frames flow. After all of
// it, what is in use is what was in use before.
#include <catch2/catch.hpp>
#include <random>

#include "tests/support/net_pair.h"

using namespace caisson;
using namespace caisson::test;

namespace {

// Numbered frames from one guest to the other: lost ones are allowed, doubled, reordered and changed ones are not.
class Stream {
  public:
    Stream(NetGuest& from, NetGuest& to) : from_(from), to_(to) {}

    void step() {
        for (int i = 0; i < 8; ++i)
            if (from_.send(content(sent_ + 1))) ++sent_;
        while (const auto got = to_.receive()) {
            std::uint32_t number = 0;
            if (got->bytes.size() < 60 || got->bytes[13] != kind) continue;  // another test's frame, still on its way
            std::memcpy(&number, got->bytes.data() + 14, 4);
            if (got->bytes != content(number)) ++wrong_;
            if (number <= last_) ++doubled_;
            last_ = number;
            ++received_;
        }
    }
    std::uint32_t sent() const { return sent_; }
    std::uint32_t received() const { return received_; }
    unsigned wrong() const { return wrong_; }
    unsigned doubled() const { return doubled_; }

  private:
    static constexpr std::byte kind{0xB6};
    std::vector<std::byte> content(std::uint32_t number) const {
        auto frame = test_frame(to_.mac, from_.mac, 64 + number * 37 % 8900, number);
        frame[13] = kind;
        std::memcpy(frame.data() + 14, &number, 4);
        return frame;
    }
    NetGuest &from_, &to_;
    std::uint32_t sent_ = 0, received_ = 0, last_ = 0;
    unsigned wrong_ = 0, doubled_ = 0;
};

bool crosses(NetWorld& world, NetGuest& from, NetGuest& to, std::uint32_t seed) {
    const auto sent = test_frame(to.mac, from.mac, 200, seed);
    bool came = false;
    return world.until([&] {
        (void)from.send(sent);
        while (const auto got = to.receive()) came |= got->bytes == sent;
        return came;
    });
}

void drain(NetWorld& world, NetGuest& guest) {
    for (int i = 0; i < 20; ++i) {
        world.step();
        while (guest.receive()) {
        }
    }
}

}  // namespace

TEST_CASE("net: the link is up while connected and the backend's carrier says so") {
    NetWorld world;
    NetGuest& guest = world.guest();
    CHECK(!guest.ends.up);
    REQUIRE(world.until([&] { return guest.connected(); }));
    REQUIRE(world.until([&] { return guest.ends.up; }));
    need(world.dom0().write(guest.back_path + "/carrier", "0"));
    REQUIRE(world.until([&] { return !guest.ends.up; }));
    need(world.dom0().write(guest.back_path + "/carrier", "1"));
    REQUIRE(world.until([&] { return guest.ends.up; }));
}

TEST_CASE("net: the mtu is what the toolstack wrote, and follows it") {
    NetWorld world;
    NetGuest& guest = world.guest({.frontend_nodes = {{"mtu", "1400"}}});
    NetGuest& standard = world.guest();
    REQUIRE(world.until([&] { return guest.connected() && standard.connected(); }));
    CHECK(guest.ends.mtu == 1400);
    CHECK(standard.ends.mtu == 9000);
    need(world.dom0().write(guest.front_path + "/mtu", "1300"));
    REQUIRE(world.until([&] { return guest.ends.mtu == 1300; }));
}

TEST_CASE("net: multicast control, sampled at connect and switched while connected") {
    NetWorld world;
    NetGuest& speaker = world.guest();
    NetGuest& filtered = world.guest({.frontend = {.multicast_control = true}});
    REQUIRE(world.until([&] { return speaker.connected() && filtered.connected(); }));
    const net::Mac group{{0x01, 0x00, 0x5E, 0x01, 0x02, 0x03}};
    const auto to_group = test_frame(group, speaker.mac, 100, 1);
    const auto hears = [&] {
        drain(world, filtered);
        REQUIRE(speaker.send(to_group));
        world.steps(20);
        bool heard = false;
        while (const auto got = filtered.receive()) heard |= got->bytes == to_group;
        return heard;
    };
    using What = net::MulticastUpdate::What;
    const auto tell = [&](What what) {
        need(filtered.front->worker()->update(net::MulticastUpdate{what, group}.encode()));
        world.steps(20);
    };
    CHECK(!hears());
    tell(What::join);
    CHECK(hears());
    tell(What::leave);
    CHECK(!hears());
    tell(What::pass_all);
    CHECK(world.until(hears));
    tell(What::filter);
    CHECK(world.until([&] { return !hears(); }));
}

TEST_CASE("net: a rate is kept on the long run, and nothing is lost by it") {
    NetWorld world;
    NetGuest& limited = world.guest({.backend_nodes = {{"rate", "200000,200000"}}});  // 1 MB/s
    NetGuest& other = world.guest();
    REQUIRE(world.until([&] { return limited.connected() && other.connected(); }));
    REQUIRE(crosses(world, other, limited, 1));
    drain(world, limited);
    drain(world, other);
    const auto frame = test_frame(other.mac, limited.mac, 1500, 2);
    const auto start = std::chrono::steady_clock::now();
    constexpr unsigned frames = 500;  // 750 KB, of which 200 KB may go at once
    unsigned sent = 0, received = 0;
    REQUIRE(world.until([&] {
        while (sent < frames && sent < received + 150 && limited.send(frame)) ++sent;
        while (const auto got = other.receive()) received += got->bytes == frame ? 1u : 0u;
        return received == frames;
    }));
    // A lower bound, so that a slow machine cannot fail it.
    CHECK(std::chrono::steady_clock::now() - start > std::chrono::milliseconds(400));
}

TEST_CASE("net: a backend that goes away and comes back finds the same attachment, and nothing leaks") {
    NetWorld world;
    NetGuest& a = world.guest();
    NetGuest& b = world.guest();
    REQUIRE(world.until([&] { return a.connected() && b.connected(); }));
    REQUIRE(crosses(world, a, b, 1));
    REQUIRE(crosses(world, b, a, 2));
    const auto before = world.usage();
    for (std::uint32_t round = 0; round < 10; ++round) {
        a.back->endpoint().broken({.fault = Fault::host, .what = "tried in a test"});
        REQUIRE(world.until([&] { return !a.ends.up && !a.connected(); }));
        a.back->endpoint().stop();
        REQUIRE(world.until([&] { return a.back->endpoint().finished(); }));
        a.back.reset();
        drain(world, b);
        need(world.dom0().write(a.back_path + "/state", "1"));
        a.back = world.backend_of(a);
        REQUIRE(world.until([&] { return a.connected() && a.ends.up; }));
        REQUIRE(crosses(world, a, b, 10 + round));
        REQUIRE(crosses(world, b, a, 20 + round));
    }
    world.steps(100);
    const auto after = world.usage();
    CHECK(after.grants == before.grants);
    CHECK(after.mappings <= before.mappings);
    CHECK(after.ports == before.ports);
    CHECK(after.descriptors <= before.descriptors + 2);
}

TEST_CASE("net: kill -9 of the frontend's worker, again and again under load: nothing doubled, nothing leaked") {
    NetWorld world;
    NetGuest& a = world.guest({.frontend = {.queues = 2}, .processes = true});
    NetGuest& b = world.guest();
    REQUIRE(world.until([&] { return a.connected() && b.connected(); }));
    REQUIRE(crosses(world, a, b, 1));
    REQUIRE(crosses(world, b, a, 2));
    drain(world, b);
    const auto before = world.usage();
    std::mt19937 random(11);
    Stream out(a, b), in(b, a);
    for (int kill = 0; kill < 30; ++kill) {
        const std::uint32_t goal_out = out.received() + random() % 60, goal_in = in.received() + random() % 60;
        REQUIRE(world.until([&] {
            out.step(), in.step();
            return out.received() >= goal_out && in.received() >= goal_in;
        }));
        a.crew->kill();
    }
    REQUIRE(crosses(world, a, b, 3));
    REQUIRE(crosses(world, b, a, 4));
    CHECK(out.wrong() + in.wrong() == 0);
    CHECK(out.doubled() + in.doubled() == 0);
    CHECK(a.front->stats().broken.get() == 0);
    CHECK(!a.back->complaint);
    CHECK(a.connected());
    REQUIRE(world.until(
        [&] { return world.usage().grants <= before.grants + 2; }));  // the hash's tables may be on their way
    CHECK(world.usage().ports == before.ports);
    CHECK(world.usage().descriptors <= before.descriptors);
}

TEST_CASE("net: kill -9 of the backends' worker under load: both guests go on") {
    NetWorld world(true);
    NetGuest& a = world.guest();
    NetGuest& b = world.guest();
    REQUIRE(world.until([&] { return a.connected() && b.connected(); }));
    REQUIRE(crosses(world, a, b, 1));
    REQUIRE(crosses(world, b, a, 2));
    drain(world, b);
    const auto before = world.usage();
    std::mt19937 random(12);
    Stream out(a, b), in(b, a);
    for (int kill = 0; kill < 30; ++kill) {
        const std::uint32_t goal_out = out.received() + random() % 60, goal_in = in.received() + random() % 60;
        REQUIRE(world.until([&] {
            out.step(), in.step();
            return out.received() >= goal_out && in.received() >= goal_in;
        }));
        world.back_crew().kill();
    }
    REQUIRE(crosses(world, a, b, 3));
    REQUIRE(crosses(world, b, a, 4));
    CHECK(out.wrong() + in.wrong() == 0);
    CHECK(out.doubled() + in.doubled() == 0);
    CHECK(!a.front->complaint);
    CHECK(!b.front->complaint);
    CHECK(a.back->stats().broken.get() + b.back->stats().broken.get() == 0);
    CHECK(world.usage().grants == before.grants);
    CHECK(world.usage().mappings == before.mappings);
    CHECK(world.usage().ports == before.ports);
    CHECK(world.usage().descriptors <= before.descriptors);
}

TEST_CASE("xsa_396_pages that the backend still maps are not reused, and go when it lets go") {
    NetWorld world;
    NetGuest& a = world.guest();
    REQUIRE(world.until([&] { return a.connected(); }));
    // The backend domain maps a ring once more, behind its worker's back, and keeps it.
    const GrantRef ring(
        static_cast<std::uint32_t>(std::stoul(*need(a.front->store().read(a.front_path + "/rx-ring-ref")))));
    auto kept = std::make_unique<MappedPages>(
        need(world.back_domain().hypervisor->map(a.domain.id, std::span(&ring, 1), Access::read_write)));
    a.front->endpoint().broken({.fault = Fault::peer, .what = "tried in a test"});
    REQUIRE(world.until([&] { return !a.connected() && !a.ends.up; }));
    world.steps(50);
    a.domain.hypervisor->retry_quarantine();  // the other rings, which the backend's worker has let go of since
    CHECK(a.domain.hypervisor->quarantined_pages() == 1);
    a.domain.hypervisor->retry_quarantine();
    CHECK(a.domain.hypervisor->quarantined_pages() == 1);
    kept.reset();
    a.domain.hypervisor->retry_quarantine();
    CHECK(a.domain.hypervisor->quarantined_pages() == 0);
}
