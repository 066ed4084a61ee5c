// What xenstored promises its clients, one message at a time.
#include <catch2/catch.hpp>
#include <chrono>
#include <string>

#include "tests/support/xenstore_peer.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

TEST_CASE("Nodes are written, read, listed and removed, and parents appear by themselves") {
    Xenstored store;
    StorePeer dom0(store, 0);
    CHECK(dom0.write("/a/b/c", "value").ok());
    CHECK(dom0.read("/a/b/c").payload == "value");
    CHECK(dom0.read("/a/b").payload.empty());
    CHECK(dom0.write("/a/b/empty", "").ok());
    CHECK(dom0.write("/a/b/bytes", std::string("\0\xff\n", 3)).ok());
    CHECK(dom0.read("/a/b/bytes").payload == std::string("\0\xff\n", 3));
    CHECK(dom0.directory("/a/b").list() == std::vector<std::string>{"bytes", "c", "empty"});
    CHECK(dom0.mkdir("/a/b").ok());  // is there already: fine
    CHECK(dom0.rm("/a/b").ok());
    CHECK(dom0.rm("/a/b").ok());  // is gone already: fine, its parent is there
    CHECK(dom0.rm("/x/y").error() == "ENOENT");
    CHECK(dom0.read("/a/b/c").error() == "ENOENT");
    CHECK(dom0.directory("/a").payload.empty());
    CHECK(dom0.rm("/").error() == "EINVAL");
    CHECK(store.exact());
}

TEST_CASE("Paths follow Xen's rules") {
    Xenstored store;
    make_home(store, 5);
    StorePeer guest(store, 5);
    CHECK(guest.write("data/x", "1").ok());
    CHECK(guest.read("/local/domain/5/data/x").payload == "1");
    for (const char* bad : {"", "/a/", "//a", "/a//b", "a/", "/a b", "/a\x80", "/a:b", "/local/domain/"})
        CHECK(guest.read(bad).error() == "EINVAL");
    CHECK(guest.read("/" + std::string(3071, 'x')).error() == "EACCES");  // legal, and none of its business
    CHECK(guest.read("/" + std::string(3072, 'x')).error() == "EINVAL");
    CHECK(guest.read(std::string(2048, 'x')).error() == "ENOENT");
    CHECK(guest.read(std::string(2049, 'x')).error() == "EINVAL");
    CHECK(guest.call(StoreOp::read, "data/x").error() == "EINVAL");              // not terminated
    CHECK(guest.call(StoreOp::read, strings("data", "x")).error() == "EINVAL");  // two strings
    CHECK(guest.call(StoreOp::write, "data").error() == "EINVAL");
    CHECK(guest.call(static_cast<StoreOp>(20), strings("x")).error() == "ENOSYS");
    CHECK(guest.call(static_cast<StoreOp>(0xffff), strings("x")).error() == "ENOSYS");
    CHECK(guest.call(StoreOp::watch_event, strings("x", "y")).error() == "ENOSYS");
}

TEST_CASE("A reply carries the request's id and transaction") {
    Xenstored store;
    StorePeer dom0(store, 0);
    const auto tx = dom0.start();
    const Answer first = dom0.write("/a", "1", tx), second = dom0.read("/nothing", tx);
    CHECK(first.transaction == tx);
    CHECK(first.payload == "OK\0"s);
    CHECK(second.request == first.request + 1);
    CHECK(second.payload == "ENOENT\0"s);
}

TEST_CASE("Messages may arrive in any pieces") {
    Xenstored store;
    StorePeer dom0(store, 0);
    std::string stream;
    for (int i = 0; i < 10; ++i) {
        const std::string payload = strings("/n" + std::to_string(i)) += "v";
        stream += bytes_of({11, 1, 0, static_cast<std::uint32_t>(payload.size())}, payload);
    }
    for (const char byte : stream) REQUIRE(dom0.push(std::string_view(&byte, 1)));
    dom0.pull();
    CHECK(dom0.replies.size() == 10);
    CHECK(dom0.read("/n9").payload == "v");
}

TEST_CASE("A new node inherits its parent's permissions, and a guest owns what it makes") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), guest(store, 5), other(store, 6);
    REQUIRE(dom0.write("/shared", "").ok());
    REQUIRE(dom0.set_perms("/shared", "n0", "b5", "r6").ok());
    CHECK(dom0.write("/shared/of-dom0", "1").ok());
    CHECK(dom0.get_perms("/shared/of-dom0").list() == std::vector<std::string>{"n0", "b5", "r6"});
    CHECK(guest.write("/shared/mine", "1").ok());
    CHECK(guest.get_perms("/shared/mine").list() == std::vector<std::string>{"n5", "b5", "r6"});
    CHECK(other.read("/shared/mine").payload == "1");
    CHECK(other.write("/shared/mine", "2").error() == "EACCES");
    CHECK(other.set_perms("/shared/mine", "n6").error() == "EACCES");
    CHECK(guest.set_perms("/shared/mine", "w5").ok());  // all others may write, and not read
    CHECK(other.read("/shared/mine").error() == "EACCES");
    CHECK(other.write("/shared/mine", "3").ok());
    CHECK(guest.read("/shared/mine").payload == "3");
    CHECK(guest.set_perms("/shared/mine", "n6").error() == "EPERM");
    CHECK(dom0.set_perms("/shared/mine", "n9").error() == "ENOENT");  // there is no domain 9
    CHECK(dom0.set_perms("/shared/mine", "x5").error() == "EINVAL");
    CHECK(dom0.set_perms("/shared/mine").error() == "EINVAL");
    CHECK(store.exact());
}

TEST_CASE("A transaction is seen by others as a whole, when it ends, or never") {
    Xenstored store;
    StorePeer one(store, 0), two(store, 0);
    const auto tx = one.start();
    CHECK(one.write("/a/b", "1", tx).ok());
    CHECK(one.read("/a/b", tx).payload == "1");
    CHECK(two.read("/a").error() == "ENOENT");
    CHECK(one.end(tx).ok());
    CHECK(two.read("/a/b").payload == "1");

    const auto dropped = one.start();
    CHECK(one.rm("/a", dropped).ok());
    CHECK(one.end(dropped, false).ok());
    CHECK(two.read("/a/b").payload == "1");
    CHECK(one.end(dropped).error() == "ENOENT");
    CHECK(one.read("/a", 999).error() == "ENOENT");
    CHECK(one.call(StoreOp::transaction_start, "\0"sv, one.start()).error() == "EBUSY");
    CHECK(one.call(StoreOp::transaction_end, strings("X"), one.start()).error() == "EINVAL");
    CHECK(store.exact());
}

TEST_CASE("A transaction ends with EAGAIN when anything it looked at has changed") {
    Xenstored store;
    StorePeer one(store, 0), two(store, 0);
    REQUIRE(one.write("/a", "1").ok());
    const auto lost = [&](const auto& inside, const auto& outside) {
        const auto tx = one.start();
        inside(tx);
        outside();
        return one.end(tx).error();
    };
    CHECK(lost([&](auto tx) { one.read("/a", tx); }, [&] { two.write("/a", "2"); }) == "EAGAIN");
    CHECK(lost([&](auto tx) { one.read("/a", tx); }, [&] { two.set_perms("/a", "r0"); }) == "EAGAIN");
    CHECK(lost([&](auto tx) { one.read("/none", tx); }, [&] { two.write("/none", ""); }) == "EAGAIN");
    CHECK(lost([&](auto tx) { one.directory("/a", tx); }, [&] { two.write("/a/x", ""); }) == "EAGAIN");
    CHECK(lost([&](auto tx) { one.write("/a", "3", tx); }, [&] { two.rm("/a"); }) == "EAGAIN");
    CHECK(two.read("/a").error() == "ENOENT");
    // What it did not look at does not matter.
    REQUIRE(two.write("/other/x", "1").ok());
    CHECK(lost([&](auto tx) { one.write("/none", "3", tx); }, [&] { two.write("/other/x", "2"); }).empty());
    // A read is repeatable even when the transaction has lost.
    const auto tx = one.start();
    CHECK(one.read("/none", tx).payload == "3");
    two.write("/none", "4");
    CHECK(one.read("/none", tx).payload == "3");
    CHECK(one.end(tx).error() == "EAGAIN");
}

TEST_CASE("A watch fires at once, then for every change at or below it") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0), guest(store, 5);
    REQUIRE(guest.push(StoreOp::watch, strings("data", "t")));
    guest.pull();
    CHECK(guest.replies.back().payload == "OK\0"s);
    CHECK(guest.take_events() == Events{{"data", "t"}});
    REQUIRE(guest.watch("/local/domain/5", "abs").ok());
    CHECK(guest.take_events() == Events{{"/local/domain/5", "abs"}});
    CHECK(guest.watch("data", "t").error() == "EEXIST");
    CHECK(guest.watch("data", "t2").ok());
    CHECK(guest.unwatch("data", "t2").ok());
    CHECK(guest.unwatch("data", "t2").error() == "ENOENT");
    guest.take_events();

    dom0.write("/local/domain/5/data/x/y", "1");
    CHECK(guest.take_events() == Events{{"data/x/y", "t"}, {"/local/domain/5/data/x/y", "abs"}});
    dom0.write("/local/domain/5/database", "1");  // begins with "data", is not below it
    CHECK(guest.take_events() == Events{{"/local/domain/5/database", "abs"}});
    guest.mkdir("data");  // is there: nothing changes
    CHECK(guest.take_events().empty());
    guest.set_perms("data", "r5");
    CHECK(guest.take_events().size() == 2);
    guest.rm("data");  // one event for those above, an exact one for those within
    CHECK(guest.take_events() == Events{{"data", "t"}, {"/local/domain/5/data", "abs"}});
}

TEST_CASE("Removing a directory tells the watches within, each of its own path") {
    Xenstored store;
    StorePeer dom0(store, 0), watcher(store, 0);
    dom0.write("/a/b/c", "");
    watcher.watch("/a/b/c", "leaf");
    watcher.watch("/a/b/none", "none");
    watcher.watch("/a", "top");
    watcher.take_events();
    dom0.rm("/a");
    CHECK(watcher.take_events() == Events{{"/a", "top"}, {"/a/b/c", "leaf"}});
}

TEST_CASE("Watches hear of a transaction when it is committed, once per node") {
    Xenstored store;
    StorePeer dom0(store, 0), watcher(store, 0);
    dom0.write("/a/old", "");
    watcher.watch("/a", "t");
    watcher.take_events();
    const auto tx = dom0.start();
    dom0.write("/a/x", "1", tx);
    dom0.write("/a/x", "2", tx);
    dom0.write("/a/short-lived", "", tx);
    dom0.rm("/a/short-lived", tx);
    dom0.rm("/a/old", tx);
    CHECK(watcher.take_events().empty());
    dom0.end(tx);
    CHECK(watcher.take_events() == Events{{"/a/x", "t"}, {"/a/old", "t"}});
}

TEST_CASE("The same event is queued once until it is read") {
    Xenstored store;
    StorePeer dom0(store, 0), watcher(store, 0);
    watcher.watch("/a", "t");
    watcher.take_events();
    for (int i = 0; i < 1000; ++i) dom0.write("/a/x", std::to_string(i));
    CHECK(watcher.connection().queued() == 1);
    CHECK(watcher.take_events() == Events{{"/a/x", "t"}});
    dom0.write("/a/x", "again");
    CHECK(watcher.take_events() == Events{{"/a/x", "t"}});
}

TEST_CASE("Dom0 hears of domains that come and go, and nobody else does") {
    Xenstored store;
    make_home(store, 5);
    StorePeer dom0(store, 0), guest(store, 5);
    for (StorePeer* peer : {&dom0, &guest}) {
        peer->watch("@introduceDomain", "i");
        peer->watch("@releaseDomain", "r");
        peer->take_events();
    }
    REQUIRE(store.create(DomainId(6), 1));
    CHECK(dom0.take_events().empty());
    CHECK(dom0.call(StoreOp::is_domain_introduced, strings("6")).text() == "F");
    CHECK(dom0.call(StoreOp::introduce, strings("6", "1", "1")).ok());
    CHECK(dom0.take_events() == Events{{"@introduceDomain", "i"}});
    CHECK(dom0.call(StoreOp::introduce, strings("6", "1", "1")).ok());
    CHECK(dom0.take_events().empty());  // was introduced already
    CHECK(dom0.call(StoreOp::is_domain_introduced, strings("6")).text() == "T");
    CHECK(guest.call(StoreOp::is_domain_introduced, strings("32752")).text() == "T");  // DOMID_SELF
    store.domain_shut_down(DomainId(6));
    CHECK(dom0.take_events() == Events{{"@releaseDomain", "r"}});
    CHECK(dom0.call(StoreOp::resume, strings("6")).ok());
    CHECK(dom0.call(StoreOp::release, strings("6")).ok());
    CHECK(dom0.take_events() == Events{{"@releaseDomain", "r"}});
    store.domain_died(DomainId(6));
    CHECK(dom0.take_events() == Events{{"@releaseDomain", "r"}});
    store.domain_died(DomainId(6));
    CHECK(dom0.take_events().empty());
    CHECK(dom0.call(StoreOp::introduce, strings("6", "1", "1")).error() == "ENOENT");
    CHECK(guest.take_events().empty());
    CHECK(store.exact());
}

TEST_CASE("Only Dom0 may introduce, release, resume, control and set targets") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), guest(store, 5);
    for (const StoreOp op :
         {StoreOp::introduce, StoreOp::release, StoreOp::resume, StoreOp::set_target, StoreOp::control})
        CHECK(guest.call(op, strings("6", "5")).error() == "EACCES");
    CHECK(dom0.call(StoreOp::control, strings("help")).error() == "EINVAL");
    CHECK(dom0.call(StoreOp::release, strings("0")).error() == "EINVAL");
    CHECK(dom0.call(StoreOp::release, strings("77")).error() == "ENOENT");
    CHECK(dom0.call(StoreOp::get_domain_path, strings("-1")).error() == "EINVAL");
    CHECK(dom0.call(StoreOp::get_domain_path, strings("32752")).error() == "EINVAL");
    CHECK(dom0.call(StoreOp::get_domain_path, strings("32751")).text() == "/local/domain/32751");
}

TEST_CASE("A domain with a target has its target's rights until either dies") {
    Xenstored store;
    make_home(store, 5);
    make_home(store, 6);
    StorePeer dom0(store, 0), model(store, 5), guest(store, 6);
    REQUIRE(guest.write("data", "1").ok());
    CHECK(model.read("/local/domain/6/data").error() == "EACCES");
    CHECK(dom0.call(StoreOp::set_target, strings("5", "6")).ok());
    CHECK(model.read("/local/domain/6/data").payload == "1");
    CHECK(model.write("/local/domain/6/data", "2").ok());
    CHECK(guest.read("/local/domain/5").error() == "EACCES");
    store.domain_died(DomainId(6));
    make_home(store, 6, 2);
    CHECK(model.read("/local/domain/6").error() == "EACCES");
}

TEST_CASE("DIRECTORY_PART lists what DIRECTORY cannot, and says when to start again") {
    Xenstored store;
    for (int i = 0; i < 1000; ++i) REQUIRE(store.write("/d/node" + std::to_string(i), ""));
    StorePeer dom0(store, 0);
    CHECK(dom0.directory("/d").error() == "E2BIG");
    std::string names, generation;
    while (!names.ends_with("\0\0"sv)) {
        const Answer part = dom0.call(StoreOp::directory_part, strings("/d", std::to_string(names.size())));
        REQUIRE(part.ok());
        CHECK(part.payload.size() <= store_payload_max);
        const std::string is = part.text();
        if (generation.empty()) generation = is;
        REQUIRE(is == generation);
        names += part.payload.substr(is.size() + 1);
    }
    CHECK(std::count(names.begin(), names.end(), '\0') == 1001);
    dom0.write("/d/one-more", "");
    CHECK(dom0.call(StoreOp::directory_part, strings("/d", "0")).text() != generation);
    CHECK(dom0.call(StoreOp::directory_part, strings("/d", "99999")).list().at(1).empty());
    CHECK(dom0.call(StoreOp::directory_part, strings("/d", "-1")).error() == "EINVAL");
    CHECK(dom0.call(StoreOp::directory_part, strings("/d")).error() == "EINVAL");
    dom0.mkdir("/empty");
    CHECK(dom0.call(StoreOp::directory_part, strings("/empty", "0")).list().at(1).empty());
}

TEST_CASE("The broker writes as Dom0 and clients hear of it") {
    Xenstored store;
    make_home(store, 5);
    StorePeer guest(store, 5);
    guest.watch("device", "t");
    guest.take_events();
    REQUIRE(store.write("/local/domain/5/device/vif/0/state", "1"));
    CHECK(guest.take_events() == Events{{"device/vif/0/state", "t"}});
    CHECK(store.read("/local/domain/5/device/vif/0/state").value() == "1");
    CHECK(store.read("/nothing").error().err == ENOENT);
    CHECK_FALSE(store.write("relative//path", ""));
    REQUIRE(store.remove("/local/domain/5/device"));
    CHECK(guest.take_events() == Events{{"device", "t"}});
    CHECK(store.exact());
}
