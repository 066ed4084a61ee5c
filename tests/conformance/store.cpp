// xenstore as a domain sees it: permissions, transactions, watches, quotas, and what a death takes with it.
#include <poll.h>

#include "tests/conformance/world.h"

namespace caisson::conformance {

namespace {

// What a domain writes lies below data/case of its home: on real Xen little else is a domain's own.
Store open_store(const Side& side) { return need(Store::open(side.xenstored)); }
std::string home(const Side& side) { return "/local/domain/" + std::to_string(side.id.raw); }

// The next event of a watch other than the one that comes at once; empty when none comes.
std::optional<WatchEvent> next_event(Store& store, int patience) {
    for (int waited = 0; waited <= patience; waited += 10) {
        if (auto event = store.take_event()) return event;
        pollfd waiting{.fd = store.fd(), .events = POLLIN, .revents = 0};
        (void)::poll(&waiting, 1, 10);
    }
    return std::nullopt;
}

}  // namespace

TEST_CASE("what a domain writes below its home it reads back, by relative path too") {
    Case w;
    Store store = open_store(w.front);
    need(store.write(home(w.front) + "/data/case/a", "one"));
    need(store.write("data/case/b", ""));
    CHECK(need(store.read("data/case/a")) == "one");
    CHECK(need(store.read(home(w.front) + "/data/case/b")) == "");
    CHECK(need(store.read("data/case/c")) == std::nullopt);
    CHECK(need(store.list("data/case")) == std::vector<std::string>{"a", "b"});
    need(store.remove("data/case/a"));
    CHECK(need(store.read("data/case/a")) == std::nullopt);
    const std::string binary("\0\x01\xFF/", 4);
    need(store.write("data/case/binary", binary));
    CHECK(need(store.read("data/case/binary")) == binary);
}

TEST_CASE("another domain reads a node when its permissions say so, and writes it never by reading rights") {
    Case w;
    Store front = open_store(w.front), back = open_store(w.back);
    const std::string node = home(w.front) + "/data/case/thing";
    need(front.write(node, "private"));
    CHECK_FALSE(back.read(node));
    CHECK_FALSE(back.write(node, "mine now"));
    CHECK_FALSE(back.list(home(w.front) + "/data/case"));

    need(front.set_permissions(node, {{.domain = w.front.id}, {.domain = w.back.id, .read = true}}));
    CHECK(need(back.read(node)) == "private");
    CHECK_FALSE(back.write(node, "mine now"));
    CHECK_FALSE(back.set_permissions(node, {{.domain = w.back.id}}));
    CHECK_FALSE(open_store(w.stranger).read(node));
    CHECK(need(front.read(node)) == "private");
}

TEST_CASE("a guest writes neither the root, nor other homes, nor the tool's places") {
    Case w;
    Store store = open_store(w.front);
    for (const std::string& path : {std::string("/x"), std::string("/tool/x"), home(w.back) + "/data/case/x",
                                    std::string("/local/domain/0/x"), std::string("/local/domain/x")})
        CHECK_FALSE(store.write(path, "x"));
    CHECK_FALSE(store.set_permissions("/", {{.domain = w.front.id}}));
    CHECK_FALSE(store.remove("/local"));
}

TEST_CASE("a transaction is seen as a whole or not at all") {
    Case w;
    Store store = open_store(w.front), other = open_store(w.front);
    const Status aborted = store.transaction([&]() -> Status {
        TRY(store.write("data/case/half", "written"));
        CHECK(need(store.read("data/case/half")) == "written");
        CHECK(need(other.read("data/case/half")) == std::nullopt);
        return host_fault(ECANCELED, "thought better of it");
    });
    CHECK_FALSE(aborted);
    CHECK(need(other.read("data/case/half")) == std::nullopt);
    need(store.transaction([&] { return store.write("data/case/whole", "written"); }));
    CHECK(need(other.read("data/case/whole")) == "written");
}

TEST_CASE("two who count up in transactions lose no step") {
    Case w;
    Store one = open_store(w.front), two = open_store(w.front);
    need(one.write("data/case/count", "0"));
    const auto add = [](Store& store) -> Status {
        const auto before = TRY(store.read("data/case/count"));
        return store.write("data/case/count", std::to_string(std::stoi(*before) + 1));
    };
    bool disturbed = false;
    need(one.transaction([&]() -> Status {
        const auto before = TRY(one.read("data/case/count"));
        if (!std::exchange(disturbed, true)) TRY(two.transaction([&] { return add(two); }));  // a conflict, once
        return one.write("data/case/count", std::to_string(std::stoi(*before) + 1));
    }));
    CHECK(need(one.read("data/case/count")) == "2");
}

TEST_CASE("a watch fires at once, then at changes below it, and not after unwatch") {
    Case w;
    Store store = open_store(w.front), writer = open_store(w.front);
    need(store.write("data/case/x", "0"));
    need(store.watch(home(w.front) + "/data/case", "token"));
    auto first = next_event(store, 2000);
    REQUIRE(first);
    CHECK(first->path == home(w.front) + "/data/case");
    CHECK(first->token == "token");
    need(writer.write("data/case/x", "1"));
    auto second = next_event(store, 2000);
    REQUIRE(second);
    CHECK(second->path == home(w.front) + "/data/case/x");
    need(store.unwatch(home(w.front) + "/data/case", "token"));
    while (store.take_event()) {
    }
    need(writer.write("data/case/x", "2"));
    CHECK_FALSE(next_event(store, 50));
}

TEST_CASE("a watch tells nothing about nodes that the watcher may not read") {
    Case w;
    Store front = open_store(w.front), spy = open_store(w.stranger);
    need(front.write("data/case/secret", "0"));
    need(spy.watch(home(w.front), "spy"));
    while (next_event(spy, 50)) {
    }
    need(front.write("data/case/secret", "1"));
    need(front.remove("data/case/secret"));
    CHECK_FALSE(next_event(spy, 100));
}

TEST_CASE("a domain's quotas end its own writing, nobody else's") {
    Case w;
    Store store = open_store(w.back);
    int made = 0;
    while (made < 5000 && store.write("data/case/n" + std::to_string(made), "x")) ++made;
    CHECK(made > 0);
    CHECK(made < 5000);
    CHECK_FALSE(store.write("data/case/long", std::string(4000, 'x')));
    int watches = 0;
    while (watches < 5000 && store.watch("data/case", "t" + std::to_string(watches))) ++watches;
    CHECK(watches > 0);
    CHECK(watches < 5000);
    Store other = open_store(w.front);
    CHECK(other.write("data/case/mine", "fine"));
    // Another connection: Linux's /dev/xen/xenbus ends the one whose watch was refused.
    Store after = open_store(w.back);
    need(after.remove("data/case"));
    CHECK(after.write("data/case/again", "fine"));
}

TEST_CASE("a death removes the domain's nodes and its rights in those of others") {
    Case w;
    if (!can_die(w.front)) return;
    Store front = open_store(w.front), back = open_store(w.back);
    const std::string node = home(w.back) + "/data/case/for-front";
    need(back.write(node, "x"));
    need(back.set_permissions(node, {{.domain = w.back.id}, {.domain = w.front.id, .read = true}}));
    CHECK(need(front.read(node)) == "x");
    need(front.write("data/case/x", "x"));
    need(front.set_permissions("data/case/x", {{.domain = w.front.id}, {.domain = w.back.id, .read = true}}));
    w.front.die();
    CHECK(need(back.read(node)) == "x");
    const auto gone = back.read(home(w.front) + "/data/case/x");
    CHECK((!gone || !*gone));
}

}  // namespace caisson::conformance
