// A hostile domain that wants what is not its own: data, quota, a dead domain's rights. One case per advisory.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

TEST_CASE("xsa_115 a watcher hears only of what it may read, before or after the change") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), spy(store, 5), victim(store, 6);
    for (const char* path : {"/", "/local", "/local/domain/6", "@introduceDomain", "@releaseDomain"})
        spy.watch(path, path);
    spy.take_events();

    victim.write("data", "secret");
    victim.set_perms("data", "n6", "w5");  // write-only for the spy
    victim.write("data", "more");
    victim.rm("data");
    dom0.write("/tool/x", "1");
    make_home(store, 7);
    store.domain_died(DomainId(7));
    CHECK(spy.take_events().empty());

    victim.write("open", "1");
    victim.set_perms("open", "n6", "r5");
    CHECK(spy.take_events().size() == 3);  // "/", "/local" and "/local/domain/6"
    victim.set_perms("open", "n6");        // who loses the right is told that it did
    CHECK(spy.take_events().size() == 3);
    victim.write("open", "2");
    CHECK(spy.take_events().empty());

    const auto tx = victim.start();
    victim.write("in-transaction", "x", tx);
    victim.end(tx);
    CHECK(spy.take_events().empty());
    spy.write("mine", "1");
    CHECK(spy.take_events() == Events{{"/local/domain/5/mine", "/local"}, {"/local/domain/5/mine", "/"}});
}

TEST_CASE("xsa_322 a new domain with a dead one's number inherits nothing") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), friendly(store, 6);
    friendly.write("for5", "secret");
    friendly.set_perms("for5", "n6", "b5");
    std::string old_value;
    {
        StorePeer old(store, 5);
        REQUIRE(old.read("/local/domain/6/for5").payload == "secret");
        old.write("mine", "secret");
        old.watch("/local/domain/6/for5", "t");
    }
    dom0.write("/promised", "secret");
    dom0.set_perms("/promised", "n0", "r5");
    store.domain_died(DomainId(5));
    for (std::uint32_t generation = 2; generation < 200; ++generation) {
        make_home(store, 5, generation);
        StorePeer fresh(store, 5);
        REQUIRE(fresh.read("/local/domain/6/for5").error() == "EACCES");
        REQUIRE(fresh.read("/promised").error() == "EACCES");
        REQUIRE(fresh.read("mine").error() == "ENOENT");
        REQUIRE(fresh.take_events().empty());
        store.domain_died(DomainId(5));
        REQUIRE(fresh.broken());
    }
    CHECK(store.exact());
}

TEST_CASE(
    "xsa_417 rights given before a domain exists, or in a transaction that outlives it, do not reach its successor") {
    Xenstored store;
    StorePeer dom0(store, 0);
    dom0.write("/early", "secret");
    CHECK(dom0.set_perms("/early", "n0", "r5").ok());  // nobody is 5 yet
    make_home(store, 5);
    {
        StorePeer guest(store, 5);
        CHECK(guest.read("/early").error() == "EACCES");
    }
    dom0.write("/late", "secret");
    const auto tx = dom0.start();
    CHECK(dom0.call(StoreOp::set_perms, strings("/late", "n0", "r5"), tx).ok());
    const auto own = dom0.start();
    CHECK(dom0.write("/given", "1", own).ok());
    CHECK(dom0.call(StoreOp::set_perms, strings("/given", "n5"), own).ok());
    store.domain_died(DomainId(5));
    make_home(store, 5, 2);
    CHECK(dom0.end(tx).error() == "EAGAIN");
    CHECK(dom0.end(own).error() == "EAGAIN");
    StorePeer guest(store, 5);
    CHECK(guest.read("/late").error() == "EACCES");
    CHECK(store.tree().usage({DomainId(5), 1}) == Usage{});
    CHECK(store.exact());
}

TEST_CASE("xsa_419 what a dead domain owned is deleted, whoever owned what was below, and not re-owned") {
    Xenstored store;
    make_home(store, 6);
    StorePeer dom0(store, 0);
    dom0.write("/shared", "");
    dom0.set_perms("/shared", "b0");
    const std::size_t before = store.tree().size();
    for (std::uint32_t generation = 1; generation <= 10000; ++generation) {
        make_home(store, 5, generation);
        StorePeer guest(store, 5), other(store, 6);
        guest.write("a/b/c", "x");
        guest.write("/shared/of5", "x");
        guest.set_perms("/shared/of5", "n5", "w6");
        other.write("/shared/of5/of6", "x");
        dom0.write("/local/domain/5/from-dom0", "x");
        store.domain_died(DomainId(5));
        REQUIRE(store.tree().size() == before);
    }
    CHECK(store.tree().usage({DomainId(0), 0}).nodes == 4);  // "/", /local, /local/domain, /shared
    CHECK(store.exact());
}

TEST_CASE("xsa_352 quota cannot be given away by changing an owner") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), guest(store, 5);
    const auto nodes = [&](std::uint16_t domain) { return store.tree().usage({DomainId(domain), 1}).nodes; };
    for (int i = 0; i < 100; ++i) {
        guest.write("n" + std::to_string(i), "");
        CHECK(guest.set_perms("n" + std::to_string(i), "n6").error() == "EPERM");
        CHECK(guest.set_perms("n" + std::to_string(i), "b0", "b5").error() == "EPERM");
    }
    CHECK(nodes(5) == 101);
    CHECK(nodes(6) == 1);
    for (int i = 0; i < 100; ++i) dom0.set_perms("/local/domain/5/n" + std::to_string(i), "n6");
    CHECK(nodes(5) == 1);
    CHECK(nodes(6) == 101);
    dom0.rm("/local/domain/5");
    CHECK(nodes(5) == 0);
    CHECK(nodes(6) == 1);
    CHECK(store.exact());
}

TEST_CASE("xsa_353 every operation asks for the same rights at every node, the root included") {
    struct Case {
        const char* letter;
        bool read, write;
    };
    for (const Case& c : {Case{"n", false, false}, {"r", true, false}, {"w", false, true}, {"b", true, true}})
        for (const std::string path : {"/", "/top", "/top/deep"})
            for (const bool own_entry : {false, true})
                for (const bool inside : {false, true}) {
                    INFO(c.letter << " at " << path << (own_entry ? " by entry" : " by default") << inside);
                    Xenstored store;
                    make_home(store, 5);
                    REQUIRE(store.write("/top/deep", "v"));
                    const std::string letter = c.letter;
                    const auto set = own_entry
                                         ? store.set_permissions(path, {letter == "b" ? "n0" : "b0", letter + "5"})
                                         : store.set_permissions(path, {letter + "0", "b6"});
                    REQUIRE(set.has_value());
                    StorePeer guest(store, 5);
                    const std::uint32_t tx = inside ? guest.start() : 0;
                    const std::string may_read = c.read ? "" : "EACCES", may_write = c.write ? "" : "EACCES";
                    CHECK(guest.read(path, tx).error() == may_read);
                    CHECK(guest.directory(path, tx).error() == may_read);
                    CHECK(guest.get_perms(path, tx).error() == may_read);
                    CHECK(guest.call(StoreOp::directory_part, strings(path, "0"), tx).error() == may_read);
                    CHECK(guest.call(StoreOp::set_perms, strings(path, "b5"), tx).error() == "EACCES");
                    CHECK(guest.mkdir(path, tx).error() == may_write);
                    CHECK(guest.write(path, "w", tx).error() == may_write);
                    const std::string child = path == "/" ? "/new" : path + "/new";
                    CHECK(guest.mkdir(child, tx).error() == may_write);
                    const std::string rm = guest.rm(path, tx).error();
                    CHECK(rm == (path == "/" && c.write ? "EINVAL" : may_write));
                    CHECK(store.tree().pin("/"));
                    CHECK(store.exact());
                }
}

TEST_CASE("xsa_233 linked domains are destroyed in every order") {
    const std::vector<std::vector<std::uint16_t>> orders{{5, 6, 7}, {5, 7, 6}, {6, 5, 7},
                                                         {6, 7, 5}, {7, 5, 6}, {7, 6, 5}};
    for (const auto& order : orders) {
        Xenstored store;
        for (const std::uint16_t domain : {5, 6, 7}) make_home(store, domain);
        StorePeer dom0(store, 0), five(store, 5), six(store, 6), seven(store, 7);
        REQUIRE(dom0.call(StoreOp::set_target, strings("5", "6")).ok());
        REQUIRE(dom0.call(StoreOp::set_target, strings("6", "7")).ok());
        REQUIRE(dom0.call(StoreOp::set_target, strings("7", "5")).ok());  // even in a circle
        REQUIRE(five.write("/local/domain/6/x", "1").ok());
        for (const std::uint16_t domain : order) {
            store.domain_died(DomainId(domain));
            store.domain_died(DomainId(domain));
            REQUIRE(store.exact());
        }
        CHECK((five.broken() && six.broken() && seven.broken()));
        CHECK(dom0.call(StoreOp::set_target, strings("5", "6")).error() == "ENOENT");
    }
}

TEST_CASE("xsa_483 a reused domain id starts with its full quota") {
    Xenstored store({.nodes = 20, .connections = 2});
    for (std::uint32_t generation = 1; generation <= 1000; ++generation) {
        make_home(store, 5, generation);
        StorePeer guest(store, 5), second(store, 5);
        for (int i = 0; i < 128; ++i) REQUIRE(guest.watch("w" + std::to_string(i), "t").ok());
        for (int i = 0; i < 19; ++i) REQUIRE(guest.write("n" + std::to_string(i), "").ok());
        REQUIRE(guest.write("one-more", "").error() == "ENOSPC");
        for (int i = 0; i < 10; ++i) REQUIRE(second.start() != 0);
        store.domain_died(DomainId(5));
        REQUIRE(store.memory(DomainId(5)) == 0);
    }
    CHECK(store.exact());
}
