#include <malloc.h>

#include <catch2/catch.hpp>

#include "ring/keys.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::test;

namespace {

struct Offer {
    std::uint32_t queues = 1;
    bool split = false;
    GrantRef ring{7};
    std::string name = "none";
    static constexpr auto keys() {
        return std::tuple{key("queues", &Offer::queues, 1, 8), key("split", &Offer::split),
                          needed("ring-ref", &Offer::ring), key("name", &Offer::name)};
    }
};

struct Rig {
    LocalXen xen;
    LocalXen::Domain domain = xen.domain();
    Store store = need(Store::open(domain.xenstored));
    Directory directory{store, "data"};
};

}  // namespace

TEST_CASE("a node is written, read, listed and removed; one that is not there is no error") {
    Rig rig;
    CHECK(!need(rig.store.read("data/a")));
    need(rig.store.write("data/a", "1"));
    need(rig.store.write("data/b", std::string_view("x\0y", 3)));
    CHECK(*need(rig.store.read("data/b")) == std::string("x\0y", 3));
    CHECK(need(rig.store.list("data")) == std::vector<std::string>{"a", "b"});
    need(rig.store.remove("data/a"));
    need(rig.store.remove("data/a"));
    CHECK(need(rig.store.list("data")) == std::vector<std::string>{"b"});
    CHECK(need(rig.store.list("nothing")).empty());
    CHECK_FALSE(rig.store.write("/local/domain/0/x", "1"));
}

TEST_CASE("opening a store by its socket leaves the environment as it was") {
    Rig rig;
    ::setenv("XENSTORED_PATH", "/nowhere", 1);
    const Store other = need(Store::open(rig.domain.xenstored));
    CHECK(std::string(std::getenv("XENSTORED_PATH")) == "/nowhere");
    ::unsetenv("XENSTORED_PATH");
    const Store third = need(Store::open(rig.domain.xenstored));
    CHECK(std::getenv("XENSTORED_PATH") == nullptr);
    CHECK_FALSE(Store::open("/nowhere/at/all"));
}

TEST_CASE("a transaction is tried again on conflict, and an error in it leaves nothing") {
    Rig rig;
    need(rig.store.write("data/a", "0"));
    Store other = need(Store::open(rig.domain.xenstored));
    int tries = 0;
    const Status done = rig.store.transaction([&]() -> Status {
        ++tries;
        const auto before = TRY(rig.store.read("data/a"));
        if (tries == 1) TRY(other.write("data/a", "5"));  // somebody else is quicker, once
        return rig.store.write("data/a", *before + "!");
    });
    CHECK(done);
    CHECK(tries == 2);
    CHECK(*need(rig.store.read("data/a")) == "5!");

    const Status failed = rig.store.transaction([&]() -> Status {
        TRY(rig.store.write("data/a", "lost"));
        return host_fault(EIO, "no");
    });
    CHECK_FALSE(failed);
    CHECK(*need(rig.store.read("data/a")) == "5!");
}

TEST_CASE("a transaction that meets a conflict every time gives up") {
    Rig rig;
    need(rig.store.write("data/a", "0"));
    Store other = need(Store::open(rig.domain.xenstored));
    int tries = 0;
    const Status done = rig.store.transaction([&]() -> Status {
        ++tries;
        TRY(rig.store.read("data/a"));
        TRY(other.write("data/a", std::to_string(tries)));
        return rig.store.write("data/a", "mine");
    });
    CHECK_FALSE(done);
    CHECK(tries == 8);
}

TEST_CASE("a watch fires once at once, then for each change; taking an event never blocks") {
    Rig rig;
    need(rig.store.write("data/a", "0"));
    need(rig.store.watch("data", "token"));
    const auto next = [&] {
        for (int i = 0; i < 20000; ++i) {
            if (auto event = rig.store.take_event()) return event;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return std::optional<WatchEvent>();
    };
    const auto first = next();
    REQUIRE(first);
    CHECK(first->path == "data");
    CHECK(first->token == "token");
    CHECK_FALSE(rig.store.take_event());
    need(rig.store.write("data/a", "1"));
    const auto second = next();
    REQUIRE(second);
    CHECK(second->path == "data/a");
    need(rig.store.unwatch("data", "token"));
    need(rig.store.write("data/a", "2"));
    CHECK_FALSE(rig.store.take_event());
}

TEST_CASE("events of a watch that ended are nobody's, and cost no memory") {
    Rig rig;
    Store writer = need(Store::open(rig.domain.xenstored));
    const auto round = [&] {
        need(rig.store.watch("data", "token"));
        for (int i = 0; i < 10; ++i) need(writer.write("data/a", "1"));
        need(rig.store.unwatch("data", "token"));
        while (rig.store.take_event()) FAIL_CHECK("an event of a watch that ended");
    };
    for (int warm = 0; warm < 20; ++warm) round();
    const auto before = ::mallinfo2().uordblks;
    for (int i = 0; i < 300; ++i) round();
    CHECK(::mallinfo2().uordblks < before + (16 << 10));
}

TEST_CASE("a number is strict decimal and nothing else") {
    CHECK(parse_decimal<std::uint32_t>("4294967295") == 4294967295u);
    for (const char* bad : {"", "-1", "+1", " 1", "1 ", "0x1", "1e3", "4294967296", "1\n", "one"})
        CHECK_FALSE(parse_decimal<std::uint32_t>(bad));
    Rig rig;
    need(rig.store.write("data/n", "12 "));
    CHECK(rig.directory.number("n", 1).error().fault == Fault::peer);
    CHECK(need(rig.directory.number("absent", 3)) == 3);
    CHECK(rig.directory.number("absent").error().fault == Fault::peer);
}

TEST_CASE("a key table is read as it was written") {
    Rig rig;
    need(write_keys(rig.directory, Offer{.queues = 4, .split = true, .ring = GrantRef(9), .name = "eth0"}));
    const Offer read = need(read_keys<Offer>(rig.directory));
    CHECK(read.queues == 4);
    CHECK(read.split);
    CHECK(read.ring == GrantRef(9));
    CHECK(read.name == "eth0");
    need(remove_keys<Offer>(rig.directory));
    CHECK(need(rig.store.list("data")).empty());
}

TEST_CASE("a key table clamps a generous peer, refuses a nonsensical one, and keeps defaults") {
    Rig rig;
    need(rig.store.write("data/ring-ref", "9"));
    Offer read = need(read_keys<Offer>(rig.directory));
    CHECK(read.queues == 1);
    CHECK(read.name == "none");
    need(rig.store.write("data/queues", "4000000000"));
    CHECK(need(read_keys<Offer>(rig.directory)).queues == 8);
    const auto refused = [&](const char* node, std::string_view value) {
        need(rig.store.write(std::string("data/") + node, value));
        const auto result = read_keys<Offer>(rig.directory);
        const bool peer = !result && result.error().fault == Fault::peer;
        need(rig.store.remove(std::string("data/") + node));
        return peer;
    };
    CHECK(refused("queues", "0"));
    CHECK(refused("queues", "1;"));
    CHECK(refused("split", "yes"));
    CHECK(refused("name", "a\nb"));
    CHECK(refused("name", std::string(300, 'a')));
    CHECK(refused("ring-ref", "99999999999"));
    CHECK_FALSE(read_keys<Offer>(rig.directory));  // ring-ref is gone, and needed
}
