// What a hostile domain starts and breaks off, or lets fail half way: nothing of it stays, and it is counted right. One
// case per advisory.
#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

TEST_CASE("xsa_330 and xsa_512 watches do not outlive a reset, nor a connection") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0);
    for (int round = 0; round < 300; ++round) {
        StorePeer guest(store, 5);
        for (int i = 0; i < 128; ++i) REQUIRE(guest.watch("w" + std::to_string(i), "t").ok());
        if (round % 2 == 0) {
            REQUIRE(guest.call(StoreOp::reset_watches, strings("")).ok());
            guest.take_events();
            dom0.write("/local/domain/5/w1", "");
            REQUIRE(guest.take_events().empty());
        }
        guest.close();
        REQUIRE(store.watches(DomainId(5)) == 0);
        REQUIRE(store.exact());
    }
    CHECK(store.memory(DomainId(5)) < 200);
}

TEST_CASE("xsa_414 a creation that fails at any depth leaves nothing behind") {
    for (std::size_t quota = 1; quota < 30; ++quota) {
        Xenstored store({.nodes = quota});
        make_home(store, 5);
        StorePeer guest(store, 5);
        std::string path = "a";
        for (int depth = 0; depth < 28; ++depth, path += "/a") {
            const std::size_t before = store.tree().size();
            const Answer answer = guest.write(path + "/b/c", "x");
            REQUIRE(store.exact());
            if (answer.ok()) {
                REQUIRE(guest.rm("a").ok());
            } else {
                REQUIRE(answer.error() == "ENOSPC");
                REQUIRE(store.tree().size() == before);
            }
            REQUIRE(store.tree().size() == 4);
        }
    }
}

TEST_CASE("xsa_415 an operation that fails for want of space inside a transaction fails the transaction") {
    Xenstored store({.nodes = 10});
    make_home(store, 5);
    StorePeer guest(store, 5);
    const auto tx = guest.start();
    CHECK(guest.write("first", "1", tx).ok());
    CHECK(guest.read("nothing", tx).error() == "ENOENT");  // an answer, not a failure
    CHECK(guest.write("a/b/c/d/e/f/g/h/i/j/k", "1", tx).error() == "ENOSPC");
    CHECK(guest.write("second", "1", tx).error() == "ENOMEM");
    CHECK(guest.end(tx).error() == "ENOMEM");
    CHECK(guest.directory("/local/domain/5").payload.empty());
    CHECK(store.exact());
}

TEST_CASE("xsa_416 nothing of a request outlives its reply, and a reply is bounded") {
    Xenstored store;
    make_home(store, 5);
    for (int i = 0; i < 50000; ++i) REQUIRE(store.write("/local/domain/5/d/" + std::to_string(i), ""));
    StorePeer slow(store, 5);
    while (slow.push(StoreOp::directory_part, strings("d", "0"))) store.tick(StoreTime{0});
    CHECK(slow.connection().queued() == 20);
    const std::int64_t nodes = store.tree().usage({DomainId(5), 1}).bytes;
    CHECK(static_cast<std::int64_t>(store.memory(DomainId(5))) - nodes <=
          20 * static_cast<std::int64_t>(store_message_max + 256));
}

TEST_CASE("xsa_421 what is created and deleted in one transaction is counted right") {
    Xenstored store({.nodes = 20});
    make_home(store, 5);
    StorePeer guest(store, 5);
    for (int round = 0; round < 200; ++round) {
        const auto tx = guest.start();
        guest.write("a/b", "1", tx);
        guest.rm("a", tx);
        guest.write("a/c", "1", tx);
        if (round % 3 == 0) guest.rm("a", tx);
        REQUIRE(guest.end(tx).ok());
        REQUIRE(store.tree().usage({DomainId(5), 1}).nodes == (round % 3 == 0 ? 1 : 3));
        guest.rm("a");
        REQUIRE(store.exact());
    }
    CHECK(store.exact());
}

TEST_CASE("xsa_421 two transactions that are within the quota each, but not together, do not both commit") {
    Xenstored store({.nodes = 20});
    make_home(store, 5);
    StorePeer first(store, 5), second(store, 5);
    first.mkdir("p");
    first.mkdir("q");
    const auto one = first.start(), two = second.start();
    for (int i = 0; i < 12; ++i) {
        CHECK(first.write("p/" + std::to_string(i), "", one).ok());
        CHECK(second.write("q/" + std::to_string(i), "", two).ok());
    }
    CHECK(first.end(one).ok());
    CHECK(second.end(two).error() == "ENOSPC");
    CHECK(store.tree().usage({DomainId(5), 1}).nodes == 15);
    CHECK(second.directory("q").payload.empty());
    CHECK(store.exact());
}

TEST_CASE("xsa_440 deleting outside what a transaction deletes inside is a conflict, not a negative count") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0), guest(store, 5);
    guest.write("a/b/c", "1");
    const auto tx = guest.start();
    CHECK(guest.rm("a", tx).ok());
    CHECK(guest.write("z", "1", tx).ok());
    CHECK(dom0.rm("/local/domain/5/a").ok());
    CHECK(store.exact());
    CHECK(guest.end(tx).error() == "EAGAIN");
    CHECK(store.tree().usage({DomainId(5), 1}).nodes == 1);

    const auto again = guest.start();
    guest.write("x", "1", again);
    store.remove("/local/domain/5").value();
    CHECK(guest.end(again).error() == "EAGAIN");
    CHECK(store.tree().usage({DomainId(5), 1}).nodes == 0);
    CHECK(store.exact());
}
