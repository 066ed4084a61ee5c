// A hostile domain that wants memory, time or other people's turn. One case per advisory; memory is counted, not timed.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;
using namespace std::chrono_literals;

TEST_CASE("xsa_206 a domain that writes without end waits; a transaction it keeps breaking succeeds meanwhile") {
    Xenstored store({.write_reserve = 100});
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), hostile(store, 5), good(store, 6);
    REQUIRE(store.write("/contended", ""));
    REQUIRE(store.set_permissions("/contended", {"b0"}));
    StoreTime now{0};
    int tries = 0, writes = 0;
    for (bool done = false; !done; ++tries) {
        REQUIRE(tries < 400);
        const auto tx = dom0.start();
        dom0.read("/contended", tx);
        // The attacker writes as often as it is let, before the transaction, which takes 4 ms, can end.
        for (int i = 0; i < 50; ++i) {
            hostile.now = now += 80us;
            store.tick(now);
            if (hostile.write("/contended", "x").ok()) ++writes;
        }
        dom0.write("/result", "1", tx);
        done = dom0.end(tx).ok();
    }
    // What it had saved, what all had saved, and 200 in a second.
    CHECK(writes <= 10 + 100 + 1 + static_cast<int>(200 * std::chrono::duration<double>(now).count()) + 1);

    // In debt it waits with its next request, which is not lost; others do not wait.
    const auto tx = dom0.start();
    while (hostile.write("/contended", "x").ok()) {
    }
    CHECK(hostile.connection().room() == 0);
    CHECK(good.write("/local/domain/6/x", "1").ok());
    CHECK(dom0.end(tx).ok());
    REQUIRE(store.next_tick());
    const std::size_t wakes = hostile.wakes;
    store.tick(*store.next_tick());
    CHECK(hostile.wakes > wakes);
    CHECK(hostile.read("/contended").ok());
    CHECK(store.exact());
}

TEST_CASE("A domain whose requests cost much waits for the others' turn, on all its connections") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    std::vector<std::unique_ptr<StorePeer>> peers;
    for (int i = 0; i < 64; ++i) peers.push_back(std::make_unique<StorePeer>(store, 5));
    StorePeer good(store, 6);
    std::string deep = "d";
    while (deep.size() < 900) deep += "/d";
    int served = 0;
    for (int turn = 0; turn < 10; ++turn) {
        for (auto& peer : peers) {
            peer->push(StoreOp::mkdir, strings(deep));
            peer->push(StoreOp::rm, strings("d"));
            peer->pull();
            served += static_cast<int>(std::exchange(peer->replies, {}).size());
        }
        good.replies.clear();
        CHECK(good.push(StoreOp::read, strings("/local/domain/6")));
        good.pull();
        CHECK(good.replies.size() == 1);
        REQUIRE(store.next_tick() == StoreTime{0});  // there is more to do: the loop is not to sleep
        store.tick(StoreTime{0});
    }
    CHECK(served >= 10);
    CHECK(served <= 20);  // not 1280
    CHECK(store.exact());
}

TEST_CASE("xsa_326 a client that does not read is not served further, and costs what its quota says") {
    Xenstored store;
    make_home(store, 5);
    StorePeer hostile(store, 5), sibling(store, 5), dom0(store, 0);
    hostile.write("data", std::string(2000, 'x'));
    while (hostile.push(StoreOp::read, strings("data"))) {
    }
    CHECK(hostile.connection().queued() == 20);
    CHECK(hostile.connection().room() == 0);
    CHECK(sibling.connection().room() == 0);  // the quota is the domain's, not the connection's
    CHECK(dom0.read("/local/domain/5/data").ok());
    CHECK(store.memory(DomainId(5)) < 100 * 1024);
    hostile.pull();
    CHECK(hostile.connection().room() > 0);
    CHECK(hostile.read("data").ok());
    CHECK(sibling.read("data").ok());
    CHECK(store.exact());
}

TEST_CASE("xsa_326 a domain's waiting client goes on when another one of it has read") {
    Xenstored store;
    make_home(store, 5);
    StorePeer first(store, 5), second(store, 5);
    for (int i = 0; i < 20; ++i) first.push(StoreOp::read, strings("/local/domain/5"));
    CHECK_FALSE(second.push(StoreOp::read, strings("x")));
    const std::size_t wakes = second.wakes;
    first.pull();
    CHECK(second.wakes > wakes);
    second.push(StoreOp::read, strings("x"));
    second.pull();
    CHECK(second.replies.back().error() == "ENOENT");
}

TEST_CASE("xsa_326 each quota refuses with Xen's error, and Dom0 has none") {
    Xenstored store;
    make_home(store, 5);
    StorePeer guest(store, 5), second(store, 5), dom0(store, 0);
    SECTION("128 watches") {
        for (int i = 0; i < 64; ++i) {
            CHECK(guest.watch("w", std::to_string(i)).ok());
            CHECK(second.watch("w", std::to_string(i)).ok());
        }
        CHECK(guest.watch("w", "x").error() == "E2BIG");
        CHECK(second.watch("w", "x").error() == "E2BIG");
        for (int i = 0; i < 300; ++i) CHECK(dom0.watch("w", std::to_string(i)).ok());
        guest.close();
        CHECK(second.watch("w", "x").ok());
    }
    SECTION("10 transactions") {
        for (int i = 0; i < 5; ++i) CHECK((guest.start() != 0 && second.start() != 0));
        CHECK(guest.call(StoreOp::transaction_start, strings("")).error() == "ENOSPC");
        for (int i = 0; i < 30; ++i) CHECK(dom0.start() != 0);
        second.close();
        CHECK(guest.start() != 0);
    }
    SECTION("1000 nodes") {
        for (int i = 0; i < 37; ++i)
            for (int k = 0; k < 26; ++k)
                REQUIRE(guest.write("d" + std::to_string(i) + "/" + std::to_string(k), "").ok());
        CHECK(store.tree().usage({DomainId(5), 1}).nodes == 1000);
        CHECK(guest.write("one-more", "").error() == "ENOSPC");
        CHECK(second.mkdir("one-more").error() == "ENOSPC");
        CHECK(guest.write("d0/0", "still writable").ok());
        CHECK(dom0.write("/local/domain/5/d0/by-dom0", "").ok());
        CHECK(guest.rm("d0").ok());
        CHECK(guest.write("one-more", "").ok());
    }
    SECTION("2 KiB in a node, its children's names included") {
        CHECK(guest.write("x", std::string(2016, 'v')).ok());
        CHECK(guest.write("x", std::string(2017, 'v')).error() == "ENOSPC");
        CHECK(guest.write("y", std::string(2017, 'v')).error() == "ENOSPC");
        CHECK(dom0.write("/local/domain/5/x", std::string(4000, 'v')).ok());
        int children = 0;
        while (guest.mkdir("dir/" + std::to_string(10000 + children)).ok()) ++children;
        CHECK(children == 2016 / 6);
    }
    SECTION("5 permissions") {
        guest.write("x", "");
        CHECK(guest.set_perms("x", "n5", "r1", "r2", "r3", "r4").ok());
        CHECK(guest.set_perms("x", "n5", "r1", "r2", "r3", "r4", "r6").error() == "ENOSPC");
        CHECK(dom0.set_perms("/local/domain/5/x", "n5", "r1", "r2", "r3", "r4", "r6", "r7").ok());
    }
    SECTION("1024 nodes in a transaction") {
        const auto tx = guest.start();
        for (int i = 0; i < 1022; ++i) REQUIRE(guest.read("n" + std::to_string(i), tx).error() == "ENOENT");
        CHECK(guest.read("n1", tx).error() == "ENOENT");
        CHECK(guest.read("and-another", tx).error() == "ENOENT");
        CHECK(guest.read("one-more", tx).error() == "ENOSPC");
        CHECK(guest.end(tx).error() == "ENOMEM");
    }
    SECTION("64 connections") {
        std::vector<std::unique_ptr<StorePeer>> more;
        for (int i = 2; i < 64; ++i) more.push_back(std::make_unique<StorePeer>(store, 5));
        CHECK_FALSE(store.connect(DomainId(5)));
        more.pop_back();
        CHECK(store.connect(DomainId(5)));
    }
    CHECK(store.exact());
}

TEST_CASE("xsa_326 memory is bounded however it is asked for") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0);
    const auto bound = static_cast<std::size_t>(store.quota().memory) + 128 * store_message_max;
    std::vector<std::unique_ptr<StorePeer>> peers;
    for (int i = 0; i < 8; ++i) peers.push_back(std::make_unique<StorePeer>(store, 5));
    const auto ask = [&](StorePeer& peer, StoreOp op, const std::string& payload, std::uint32_t tx = 0) {
        const Answer answer = peer.call(op, payload, tx);
        REQUIRE(store.memory(DomainId(5)) <= bound);
        return answer;
    };
    std::string error;
    SECTION("deep paths") {
        std::string deep(1900, 'x');
        for (int i = 0; error.empty(); ++i) {
            REQUIRE(i < 3000);
            error = ask(*peers[0], StoreOp::write, strings(deep + std::to_string(i)) += std::string(1000, 'v')).error();
        }
    }
    SECTION("values") {
        for (int i = 0; error.empty(); ++i) {
            REQUIRE(i < 3000);
            const std::string path = "d" + std::to_string(i % 100) + "/" + std::to_string(i);
            error = ask(*peers[0], StoreOp::write, strings(path) += std::string(1900, 'v')).error();
        }
    }
    SECTION("watches with long tokens") {
        for (int i = 0; i < 128; ++i)
            ask(*peers[0], StoreOp::watch, strings("w" + std::to_string(i), std::string(4000, 't')));
        error = ask(*peers[0], StoreOp::watch, strings("x", "t")).error();
    }
    SECTION("pictures of big nodes in transactions") {
        REQUIRE(store.set_permissions("/", {"r0"}));
        REQUIRE(store.set_permissions("/local", {"r0"}));
        for (int i = 0; i < 1000; ++i) REQUIRE(store.write("/local/big" + std::to_string(i), std::string(4000, 'v')));
        for (int tx = 0; tx < 10 && error.empty(); ++tx) {
            const std::uint32_t id = peers[0]->start();
            for (int i = 0; i < 1000 && error.empty(); ++i)
                error = ask(*peers[0], StoreOp::read, strings("/local/big" + std::to_string(i)), id).error();
        }
        CHECK(error == "ENOMEM");
    }
    SECTION("events that nobody reads") {
        for (int i = 0; i < 128; ++i) {
            peers[static_cast<std::size_t>(i) % 8]->watch("/local/domain/5", std::to_string(i) + std::string(900, 't'));
        }
        for (auto& peer : peers) peer->pull();
        for (int i = 0; i < 5000; ++i) {
            REQUIRE(store.write("/local/domain/5/d" + std::to_string(i % 2000), "x"));
            REQUIRE(store.memory(DomainId(5)) <= bound + 2000 * 200);  // Dom0 made these nodes for it
        }
        // Nothing was lost: each watch has been told of something at or below its path.
        Events all;
        for (auto& peer : peers) {
            const Events some = peer->take_events();
            all.insert(all.end(), some.begin(), some.end());
        }
        for (int i = 0; i < 128; ++i) {
            const std::string token = std::to_string(i) + std::string(900, 't');
            CHECK(std::ranges::any_of(all, [&](const auto& event) { return event.second == token; }));
        }
    }
    CHECK(dom0.write("/still/works", "1").ok());
    CHECK(store.exact());
}

TEST_CASE("xsa_326 events unread for 20 s break the connection, and only that") {
    Xenstored store;
    make_home(store, 5);
    StorePeer slow(store, 5), good(store, 5), dom0(store, 0), idle(store, 5);
    dom0.watch("@releaseDomain", "r");
    dom0.take_events();
    for (StorePeer* peer : {&slow, &good}) {
        peer->watch("data", "t");
        peer->take_events();
    }
    store.tick(100s);
    REQUIRE(store.write("/local/domain/5/data", "1"));
    CHECK(store.next_tick() == StoreTime(120s));
    store.tick(119s);
    CHECK_FALSE(slow.broken());
    good.now = 119s;
    CHECK(good.take_events().size() == 1);
    store.tick(120s);
    CHECK(slow.broken());
    CHECK_FALSE(good.broken());
    CHECK_FALSE(idle.broken());
    CHECK(store.watches(DomainId(5)) == 1);
    CHECK(dom0.take_events().empty());  // misbehaving is not dead
    dom0.watch("/local", "t");
    store.tick(1000s);
    CHECK_FALSE(dom0.broken());
    CHECK(store.exact());
}

TEST_CASE("xsa_349 a node that is rewritten without end is one event for who is slow to read") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer hostile(store, 5), backend(store, 6);
    hostile.write("state", "1");
    hostile.set_perms("state", "n5", "r6");
    backend.watch("/local/domain/5/state", "t");
    backend.take_events();
    const std::size_t before = store.memory(DomainId(6));
    for (int i = 0; i < 100000; ++i) REQUIRE(hostile.write("state", std::to_string(i)).ok());
    CHECK(backend.connection().queued() == 1);
    CHECK(store.memory(DomainId(6)) < before + 1000);
}
