#include <catch2/catch.hpp>
#include <set>
#include <vector>

#include "ring/xenbus_table.h"

using namespace caisson;
using enum XenbusState;

namespace {

using Table = Step (*)(XenbusState, XenbusState);
constexpr Table backend = [](XenbusState mine, XenbusState peer) { return backend_step(mine, peer); };
constexpr Table tables[] = {backend, frontend_step};

bool serving(XenbusState mine) {
    return mine == initialised || mine == connected || mine == reconfiguring || mine == reconfigured;
}

template <class Check>
void each_pair(Check&& check) {
    for (const Table table : tables)
        for (const XenbusState mine : all_xenbus_states)
            for (const XenbusState peer : all_xenbus_states) {
                INFO((table == backend ? "backend " : "frontend ") << name(mine) << " sees " << name(peer));
                check(table, mine, peer, table(mine, peer));
            }
}

// The table alone, a worker that always attaches at once: where do we come to rest while the peer stands still?
XenbusState rest(Table table, XenbusState mine, XenbusState peer) {
    for (int steps = 0; steps < 5; ++steps) {
        const Step step = table(mine, peer);
        if (step.action == Do::nothing && step.next == mine) return mine;
        mine = step.next;
        if (step.action == Do::connect && table == backend) mine = connected;
    }
    return unknown;  // never at rest
}

}  // namespace

TEST_CASE("whatever the peer shows, the table comes to rest") {
    each_pair([](Table table, XenbusState mine, XenbusState peer, Step) {
        const bool at_rest = rest(table, mine, peer) != unknown;
        CHECK(at_rest);
    });
}

TEST_CASE("a peer that is gone or says goodbye is never served") {
    each_pair([](Table table, XenbusState mine, XenbusState peer, Step) {
        if (peer == closing || peer == closed || peer == unknown) CHECK_FALSE(serving(rest(table, mine, peer)));
    });
}

TEST_CASE("rings are taken only from a peer that published them, and only after our offer") {
    each_pair([](Table table, XenbusState mine, XenbusState peer, Step step) {
        if (step.action != Do::connect) return;
        if (table == backend) {
            CHECK(mine == init_wait);
            CHECK((peer == initialised || peer == connected));
        } else {
            CHECK_FALSE(serving(mine));
            CHECK(peer == init_wait);
        }
        CHECK(step.next == initialised);
        CHECK(step.show != connected);
    });
}

TEST_CASE("a directory that is seen for the first time is never connected without an offer") {
    for (const XenbusState peer : all_xenbus_states) {
        CHECK(frontend_step(unknown, peer) == Step{Do::offer, initialising, initialising});
        CHECK(backend_step(unknown, peer).action != Do::connect);
    }
}

TEST_CASE("leaving a state in which we serve always disconnects") {
    each_pair([](Table, XenbusState mine, XenbusState, Step step) {
        if (serving(mine) && !serving(step.next)) CHECK((step.action == Do::disconnect || step.action == Do::restart));
        if (step.action == Do::connect) CHECK_FALSE(serving(mine));
    });
}

TEST_CASE("nothing to do means nothing is written") {
    each_pair([](Table, XenbusState mine, XenbusState, Step step) {
        if (step.action == Do::nothing && step.next == mine) CHECK(step.show == mine);
    });
}

TEST_CASE("Reconfiguring and Reconfigured of the peer disturb no connection") {
    for (const Table table : tables)
        for (const XenbusState mine : {initialised, connected})
            for (const XenbusState peer : {reconfiguring, reconfigured})
                CHECK(table(mine, peer) == Step{Do::nothing, mine, mine});
}

TEST_CASE("the Windows drivers' Closing, Closed cycle before the first connect is answered state by state") {
    XenbusState mine = unknown;
    const auto answer = [&](XenbusState peer) {
        const Step step = backend_step(mine, peer);
        mine = step.next;
        return step;
    };
    CHECK(answer(initialising) == Step{Do::offer, init_wait, init_wait});
    CHECK(answer(closing) == Step{Do::nothing, closing, closing});
    CHECK(answer(closed).show == closed);
    CHECK(answer(initialising) == Step{Do::offer, init_wait, init_wait});
    CHECK(answer(connected).action == Do::connect);
}

TEST_CASE("a frontend that starts over while we are connected gets a disconnect and a new offer") {
    CHECK(backend_step(connected, initialising) == Step{Do::restart, init_wait, init_wait});
    CHECK(backend_step(initialised, initialising) == Step{Do::restart, init_wait, init_wait});
    CHECK(backend_step(closing, initialising) == Step{Do::restart, init_wait, init_wait});
}

TEST_CASE("a frontend that jumps straight to Closed is answered with Closed") {
    CHECK(backend_step(connected, closed) == Step{Do::disconnect, closed, closed});
    CHECK(backend_step(init_wait, closed) == Step{Do::nothing, closed, closed});
}

TEST_CASE("a frontend that jumps from Closed to Initialised is offered to and then connected") {
    CHECK(backend_step(closed, initialised).action == Do::offer);
    CHECK(rest(backend, closed, initialised) == connected);
    CHECK(rest(backend, closed, connected) == connected);
}

TEST_CASE("the successor of a dead controller takes a live connection over") {
    CHECK(rest(backend, unknown, connected) == connected);
    // A frontend that was sent away is invited, and not at once sent away again.
    CHECK(backend_step(unknown, closed) == Step{Do::offer, closed, init_wait});
    CHECK(rest(backend, unknown, closed) == closed);
    CHECK(frontend_step(closed, init_wait).action == Do::offer);
}

TEST_CASE("on a live device the successor of a dead controller shows InitWait to nobody") {
    for (const XenbusState mine : {unknown, initialising}) {
        CHECK(backend_step(mine, connected, {.shown = connected}) == Step{Do::offer, init_wait, connected});
        CHECK(backend_step(mine, connected, {.shown = init_wait}) == Step{Do::offer, init_wait, init_wait});
        CHECK(backend_step(mine, initialising, {.shown = connected}) == Step{Do::offer, init_wait, init_wait});
    }
}

TEST_CASE("a frontend whose rings cannot be continued is invited again once it has let go") {
    CHECK(backend_step(closing, closed, {.invites = true}) == Step{Do::offer, closed, init_wait});
    CHECK(backend_step(closing, connected, {.invites = true}) == Step{Do::nothing, closing, closing});
    CHECK(backend_step(closing, closed) == Step{Do::disconnect, closed, closed});
}

TEST_CASE("a device that we closed stays closed until the peer itself lets go") {
    for (const XenbusState peer : {initialised, connected, reconfiguring, reconfigured}) {
        CHECK(backend_step(closing, peer) == Step{Do::nothing, closing, closing});
        CHECK(frontend_step(closing, peer) == Step{Do::nothing, closing, closing});
    }
}

TEST_CASE("a frontend waits for InitWait and reconnects to a backend that starts over") {
    for (const XenbusState stale : {connected, initialised, closing, closed, unknown})
        CHECK(frontend_step(initialising, stale).action == Do::nothing);
    CHECK(rest(frontend_step, initialising, init_wait) == initialised);
    CHECK(frontend_step(initialised, connected) == Step{Do::nothing, connected, connected});
    CHECK(frontend_step(connected, init_wait).action == Do::restart);
    CHECK(frontend_step(connected, initialising).action == Do::restart);
}

TEST_CASE("two endpoints that follow the table meet in Connected from every pair of states") {
    for (const XenbusState back_start : {unknown, init_wait, closed})
        for (const XenbusState front_start : {unknown, closed}) {
            INFO("backend " << name(back_start) << ", frontend " << name(front_start));
            XenbusState back = back_start, front = front_start;
            XenbusState back_shown = back_start == unknown ? initialising : back_start;
            XenbusState front_shown = front_start == unknown ? initialising : front_start;
            // A frontend that closes while we wait in InitWait is answered with Closed; both are closed for good then.
            if (back_start != unknown && front_start == closed) continue;
            for (int turn = 0; turn < 12; ++turn) {
                const Step b = backend_step(back, front_shown);
                if (b.action != Do::nothing || b.next != back) back_shown = b.show;
                back = b.next;
                if (b.action == Do::connect) back = back_shown = connected;
                const Step f = frontend_step(front, back_shown);
                if (f.action != Do::nothing || f.next != front) front_shown = f.show;
                front = f.next;
                if (f.action == Do::connect) front_shown = initialised;
            }
            CHECK(back == connected);
            CHECK(front == connected);
        }
}
