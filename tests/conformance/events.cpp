// Event channels: pending latch, coalescing, one-to-one binding, and what a close or a death does to the other side.
#include "tests/conformance/world.h"

namespace caisson::conformance {

namespace {

struct Bound {
    EventChannel front, back;
};

Bound bound(Case& w) {
    Bound made;
    made.front = need(w.front->allocate_unbound(w.back.id));
    made.back = need(w.back->bind_interdomain(w.front.id, made.front.port()));
    return made;
}

// As a device does: take the event, then let the next one in.
bool take(const EventChannel& channel) {
    const bool pending = readable(channel, 1000) && clear(channel);
    unmask(channel);
    return pending;
}

}  // namespace

TEST_CASE("one event is pending right after the bind, for who binds and not for the other side") {
    Case w;
    const Bound both = bound(w);
    CHECK(take(both.back));
    CHECK_FALSE(readable(both.front));
    CHECK_FALSE(readable(both.back));
    CHECK_FALSE(clear(both.front));
}

TEST_CASE("a notify is seen by the other side only, and any number of them is one event") {
    Case w;
    const Bound both = bound(w);
    take(both.back);
    CHECK(notify(both.front));
    CHECK(take(both.back));
    CHECK_FALSE(readable(both.front));
    CHECK_FALSE(readable(both.back));

    REQUIRE(notify(both.back, rounds(w, 100'000)));  // never blocks, never fails
    CHECK(take(both.front));
    int more = 0;
    while (readable(both.front) && more < 100) {
        clear(both.front);
        unmask(both.front);
        ++more;
    }
    CHECK(more < 100);
}

TEST_CASE("two channels are two channels") {
    Case w;
    const Bound one = bound(w), two = bound(w);
    for (const Bound* both : {&one, &two}) take(both->back);
    CHECK(one.front.port() != two.front.port());
    CHECK(notify(one.front));
    CHECK(take(one.back));
    CHECK_FALSE(readable(two.back));
}

TEST_CASE("a port can be bound by the domain it is for, once, and by nobody else") {
    Case w;
    auto port = need(w.front->allocate_unbound(w.back.id));
    CHECK_FALSE(w.stranger->bind_interdomain(w.front.id, port.port()));
    auto end = need(w.back->bind_interdomain(w.front.id, port.port()));
    CHECK_FALSE(w.back->bind_interdomain(w.front.id, port.port()));
    // The bound end is nobody's to bind, either.
    CHECK_FALSE(w.front->bind_interdomain(w.back.id, end.port()));
    for (std::uint32_t raw : {0U, 0x7FFFFFFFU, 0xFFFFFFFFU})
        CHECK_FALSE(w.back->bind_interdomain(w.front.id, Port(raw)));
}

TEST_CASE("a notify before the bind does no harm") {
    Case w;
    auto port = need(w.front->allocate_unbound(w.back.id));
    CHECK_FALSE(readable(port));
    CHECK(notify(port));
    auto end = need(w.back->bind_interdomain(w.front.id, port.port()));
    CHECK(take(end));
    CHECK_FALSE(readable(port));
    CHECK(notify(end));
    CHECK(take(port));
}

TEST_CASE("when one side closes, the other side's port can be bound again and its descriptors stay good") {
    Case w;
    Bound both = bound(w);
    take(both.back);
    for (int round = 0; round < 3; ++round) {
        w.back->close(std::move(both.back));
        both.back = EventChannel();
        (void)notify(both.front);  // into the void: whatever it says, it must not hurt
        CHECK_FALSE(w.stranger->bind_interdomain(w.front.id, both.front.port()));
        both.back = need(w.back->bind_interdomain(w.front.id, both.front.port()));
        CHECK_FALSE(readable(both.front));
        CHECK(take(both.back));
        CHECK(notify(both.front));
        CHECK(take(both.back));
        CHECK(notify(both.back));
        CHECK(take(both.front));
    }
}

TEST_CASE("when the side that allocated closes, the port is gone and the other side hears no more") {
    Case w;
    Bound both = bound(w);
    const Port port = both.front.port();
    take(both.back);
    w.front->close(std::move(both.front));
    CHECK_FALSE(w.stranger->bind_interdomain(w.front.id, port));
    (void)notify(both.back);
    // Both ends can be used anew: theirs is unbound for us now, Xen's rule.
    auto again = need(w.front->bind_interdomain(w.back.id, both.back.port()));
    CHECK_FALSE(readable(both.back));
    CHECK(take(again));
    w.back->close(std::move(both.back));
}

TEST_CASE("a port that is closed is free for the next one") {
    Case w;
    std::vector<std::uint32_t> seen;
    for (int i = 0; i < rounds(w, 3000); ++i) {  // locally more than a domain may have at one time
        auto port = need(w.front->allocate_unbound(w.back.id));
        if (i % 2 == 0) {
            auto end = need(w.back->bind_interdomain(w.front.id, port.port()));
            w.back->close(std::move(end));
        }
        w.front->close(std::move(port));
    }
}

}  // namespace caisson::conformance
