// Requests of a shape that nobody expects: too long, too deep, cut off, out of order. One case per advisory.
#include <catch2/catch.hpp>
#include <string>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

TEST_CASE("xsa_72 no reply is larger than the protocol allows") {
    Xenstored store;
    make_home(store, 5);
    for (int i = 0; i < 100000; ++i) REQUIRE(store.write("/local/domain/5/d/" + std::to_string(i), ""));
    StorePeer guest(store, 5), dom0(store, 0);
    CHECK(guest.directory("d").error() == "E2BIG");
    CHECK(dom0.directory("/local/domain/5/d").error() == "E2BIG");
    for (const char* offset : {"0", "4095", "588889", "588890", "18446744073709551615"})
        CHECK(guest.call(StoreOp::directory_part, strings("d", offset)).payload.size() <= store_payload_max);
    std::string many = strings("/local/domain/5/d");
    for (int i = 0; i < 1300; ++i) many += strings("r5");
    CHECK(dom0.call(StoreOp::set_perms, many).ok());
    CHECK(dom0.get_perms("/local/domain/5/d").payload.size() == 3 * 1300);
}

TEST_CASE("xsa_323 a path is judged after it is made absolute, at every length") {
    Xenstored store;
    make_home(store, 5);
    StorePeer guest(store, 5), dom0(store, 0);
    const std::size_t home = domain_path(DomainId(5)).size() + 1;
    for (std::size_t length = 1023; length <= 4090; ++length) {
        const std::string relative(length, 'x'), absolute = "/" + std::string(length - 1, 'x');
        const bool fits = length <= store_relative_path_max && length + home <= store_absolute_path_max;
        REQUIRE(guest.read(relative).error() == (fits ? "ENOENT" : "EINVAL"));
        REQUIRE(dom0.read(absolute).error() == (length <= store_absolute_path_max ? "ENOENT" : "EINVAL"));
    }
    // So everything that can be made can be listed, read and removed.
    CHECK(dom0.write("/" + std::string(3071, 'x'), "1").ok());
    CHECK(dom0.directory("/").ok());
    CHECK(dom0.rm("/" + std::string(3071, 'x')).ok());
}

TEST_CASE("xsa_324 a watch whose events would not fit gets events that do") {
    Xenstored store;
    StorePeer dom0(store, 0);
    make_home(store, 5);
    StorePeer guest(store, 5);
    const std::string token(4000, 't');
    CHECK(guest.watch("data", token).ok());
    CHECK(guest.take_events() == Events{{"data", token}});
    dom0.write("/local/domain/5/data/" + std::string(2000, 'x'), "1");
    CHECK(guest.take_events() == Events{{"data", token}});  // the watched path stands for the one that is too long
    const std::string longest(4096 - 5 - 1, 't');
    CHECK(guest.watch("data", longest).ok());
    CHECK(guest.take_events() == Events{{"data", longest}});
    CHECK_FALSE(guest.broken());
}

TEST_CASE("xsa_325 a client that breaks the protocol is not a dead domain") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0), bad(store, 5), good(store, 5);
    dom0.watch("@releaseDomain", "r");
    dom0.take_events();
    good.write("data", "1");
    bad.watch("data", "t");
    bad.push(bytes_of({2, 1, 0, 5000}, ""));
    CHECK(bad.broken());
    CHECK_FALSE(good.broken());
    CHECK(dom0.take_events().empty());
    CHECK(dom0.call(StoreOp::is_domain_introduced, strings("5")).text() == "T");
    CHECK(dom0.read("/local/domain/5/data").payload == "1");
    bad.close();
    StorePeer again(store, 5);
    CHECK(again.read("data").payload == "1");
    store.domain_died(DomainId(5));
    CHECK(dom0.take_events() == Events{{"@releaseDomain", "r"}});
    CHECK(dom0.read("/local/domain/5/data").error() == "ENOENT");
}

TEST_CASE("xsa_418 a tree as deep as paths allow is made, watched and removed without recursion") {
    Xenstored store({.nodes = 3000, .memory = 1 << 30});
    make_home(store, 5);
    StorePeer guest(store, 5), dom0(store, 0);
    std::string deep = "d";
    while (deep.size() + 2 <= 2048) deep += "/d";
    guest.watch("d", "t");
    guest.take_events();
    CHECK(guest.write(deep, "1").ok());
    CHECK(store.tree().usage({DomainId(5), 1}).nodes == 1025);
    const auto tx = dom0.start();
    CHECK(dom0.rm("/local/domain/5/d", tx).ok());
    CHECK(dom0.end(tx).ok());
    CHECK(guest.write(deep, "1").ok());
    CHECK(guest.rm("d").ok());
    CHECK(guest.write(deep, "1").ok());
    std::string deepest = "/top";
    while (deepest.size() + 2 <= 3072) deepest += "/d";
    CHECK(dom0.write(deepest, "1").ok());
    CHECK(dom0.rm("/top").ok());
    store.domain_died(DomainId(5));
    CHECK(store.tree().size() == 3);
    CHECK(store.exact());
}

TEST_CASE("xsa_420 a message of an impossible length is not waited for, nor tried again") {
    for (const std::uint32_t length :
         {4097U, 0x10000U, 0x40000000U, 0x7fffffffU, 0x80000000U, 0xfffffff0U, 0xffffffffU}) {
        Xenstored store;
        make_home(store, 5);
        StorePeer guest(store, 5);
        guest.watch("x", "t");
        guest.push(bytes_of({2, 1, 0, length}, "x"));
        CHECK(guest.broken());
        CHECK(guest.connection().room() == 0);
        CHECK_FALSE(guest.push("more"));
        store.tick(StoreTime{1});
        CHECK(store.watches(DomainId(5)) == 0);
        CHECK_FALSE(store.next_tick());
        CHECK(store.exact());
    }
}

TEST_CASE("xsa_481 every prefix of every known path, with and without a slash, is answered") {
    Xenstored store;
    make_home(store, 5);
    StorePeer guest(store, 5), dom0(store, 0);
    for (const std::string known : {"/local/domain/5/data", "/local/domain/0/backend/vif/5/0/state", "@releaseDomain",
                                    "@introduceDomain", "/tool/xenstored", "/libxl/5/device"})
        for (std::size_t length = 0; length <= known.size(); ++length)
            for (const std::string tail : {"", "/"}) {
                const std::string path = known.substr(0, length) + tail;
                for (StorePeer* peer : {&guest, &dom0}) {
                    const bool end = path.size() > 1 && path.ends_with('/');
                    const std::string error = peer->read(path).error();
                    if (path.empty() || end) REQUIRE(error == "EINVAL");
                    REQUIRE((error.empty() || error == "EINVAL" || error == "ENOENT" || error == "EACCES"));
                    peer->get_perms(path);
                    peer->set_perms(path, "b5");
                    peer->watch(path, "t");
                    peer->unwatch(path, "t");
                    peer->directory(path);
                    peer->mkdir(path);
                    if (peer == &guest) peer->rm(path);
                    REQUIRE_FALSE(peer->broken());
                }
            }
    CHECK(store.exact());
}

TEST_CASE("xsa_484 every operation is legal inside a transaction and outside, in any order, twice") {
    for (std::uint32_t op = 0; op < 25; ++op)
        for (const bool inside : {false, true})
            for (const std::uint16_t who : {0, 5}) {
                INFO("operation " << op << " inside " << inside << " by " << who);
                Xenstored store;
                make_home(store, 5);
                StorePeer peer(store, who);
                const std::uint32_t tx = peer.start();
                peer.watch("/local/domain/5", "t");
                peer.write("/local/domain/5/x", "1", tx);
                for (int twice = 0; twice < 2; ++twice) {
                    for (const std::string& payload : {strings("/local/domain/5/x"), strings("T"), strings("5"),
                                                       strings("/local/domain/5", "t"), strings(""), std::string()})
                        peer.call(static_cast<StoreOp>(op), payload, inside ? tx : 0);
                    REQUIRE(store.exact());
                }
                REQUIRE((peer.broken() || peer.read("/local/domain/5/x").type != StoreOp::watch_event));
            }
    Xenstored store;
    make_home(store, 5);
    StorePeer guest(store, 5);
    const auto tx = guest.start();
    guest.watch("x", "t");
    CHECK(guest.call(StoreOp::reset_watches, strings(""), tx).ok());
    CHECK(store.watches(DomainId(5)) == 0);
    CHECK(store.transactions(DomainId(5)) == 0);
    CHECK(guest.end(tx).error() == "ENOENT");
    CHECK(guest.call(StoreOp::reset_watches, strings("")).ok());
    CHECK(store.exact());
}

TEST_CASE("xsa_425 a connection survives the release of its domain while its requests are pending") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0);
    for (int round = 0; round < 100; ++round) {
        StorePeer guest(store, 5), second(store, 5);
        for (int i = 0; i < 40; ++i) guest.push(StoreOp::read, strings("x"));  // 20 are answered, the rest waits
        second.push(bytes_of({11, 1, 0, 100}, "half a mess"));
        guest.start();
        REQUIRE(dom0.call(StoreOp::release, strings("5")).ok());
        REQUIRE((guest.broken() && second.broken()));
        CHECK_FALSE(guest.push("x"));
        guest.pull();
        store.tick(StoreTime{round});
        REQUIRE(dom0.call(StoreOp::release, strings("5")).error() == "EINVAL");
        REQUIRE(dom0.call(StoreOp::introduce, strings("5", "1", "1")).ok());
        REQUIRE(store.exact());
    }
}
