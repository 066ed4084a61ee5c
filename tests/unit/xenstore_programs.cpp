// Programs that were written for Xen run against the local xenstored as they are.
#include <sys/wait.h>
#include <unistd.h>
extern "C" {  // Xen 4.17 has no C++ guards in it
#include <xenstore.h>
}

#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>

#include "tests/support/xenstore_host.h"

using namespace caisson;
using namespace caisson::hypervisor;
using namespace caisson::hypervisor::testing;

namespace {

struct Outcome {
    int status = -1;
    std::string text;
};

// Runs a shell command with the store's socket where Xen's programs look for it.
Outcome sh(const std::string& socket, const std::string& command) {
    const std::string line = "XENSTORED_PATH=" + socket + " LC_ALL=C sh -c '" + command + "' 2>&1";
    FILE* pipe = ::popen(line.c_str(), "r");
    Outcome outcome;
    std::array<char, 4096> part;
    while (const std::size_t got = std::fread(part.data(), 1, part.size(), pipe)) outcome.text.append(part.data(), got);
    const int status = ::pclose(pipe);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return outcome;
}

bool have_tools() {
    for (const char* tool : {"ls", "read", "write", "watch", "chmod", "list", "rm", "exists"})
        if (sh("-", std::string("command -v xenstore-") + tool).status != 0) {
            WARN("skipped: xenstore-" << tool << " is not installed (Debian: xenstore-utils)");
            return false;
        }
    return true;
}

struct Handle {
    explicit Handle(const std::string& socket) {
        ::setenv("XENSTORED_PATH", socket.c_str(), 1);
        xs = ::xs_open(0);
        ::unsetenv("XENSTORED_PATH");
        REQUIRE(xs);
    }
    Handle(const Handle&) = delete;
    ~Handle() { ::xs_close(xs); }
    std::string read(const char* path, xs_transaction_t tx = XBT_NULL) {
        unsigned length = 0;
        std::unique_ptr<void, decltype(&std::free)> value(::xs_read(xs, tx, path, &length), &std::free);
        return value ? std::string(static_cast<char*>(value.get()), length) : "errno " + std::to_string(errno);
    }
    bool write(const char* path, std::string_view value, xs_transaction_t tx = XBT_NULL) {
        return ::xs_write(xs, tx, path, value.data(), static_cast<unsigned>(value.size()));
    }
    xs_handle* xs = nullptr;
};

}  // namespace

TEST_CASE("Debian's xenstore programs work unmodified") {
    if (!have_tools()) return;
    StoreHost host({3});
    const std::string dom0 = host.path(0);

    CHECK(sh(dom0, "xenstore-write /local/domain/3/name guest /local/domain/3/device/vif/0/state 1").status == 0);
    CHECK(sh(dom0, "xenstore-read /local/domain/3/name").text == "guest\n");
    CHECK(sh(dom0, "xenstore-list /local/domain/3").text == "device\nname\n");
    CHECK(sh(dom0, "xenstore-chmod -r /local/domain/3 n3 r0").status == 0);
    CHECK(sh(dom0, "xenstore-exists /local/domain/3/name").status == 0);
    CHECK(sh(dom0, "xenstore-exists /local/domain/3/nothing").status == 1);
    CHECK(sh(dom0, "xenstore-ls -fp /local").text ==
          "/local/domain = \"\"   (n0)\n"
          "/local/domain/3 = \"\"   (n3,r0)\n"
          "/local/domain/3/device = \"\"   (n3,r0)\n"
          "/local/domain/3/device/vif = \"\"   (n3,r0)\n"
          "/local/domain/3/device/vif/0 = \"\"   (n3,r0)\n"
          "/local/domain/3/device/vif/0/state = \"1\"   (n3,r0)\n"
          "/local/domain/3/name = \"guest\"   (n3,r0)\n");

    SECTION("as a guest, with relative paths, within its rights") {
        CHECK(sh(host.path(3), "xenstore-read name").text == "guest\n");
        CHECK(sh(host.path(3), "xenstore-write data/x 5 && xenstore-read /local/domain/3/data/x").text == "5\n");
        CHECK(sh(host.path(3), "xenstore-write /local/domain/4 x").status != 0);
        CHECK(sh(host.path(3), "xenstore-ls /").status != 0);
    }
    SECTION("removal") {
        CHECK(sh(dom0, "xenstore-rm /local/domain/3").status == 0);
        CHECK(sh(dom0, "xenstore-read /local/domain/3/name").status != 0);
    }
    SECTION("a watch shows what happens") {
        // Written again and again, since nothing says when the watch is there; so it may see either first.
        const auto seen =
            sh(dom0,
               "(while :; do xenstore-write /watched/a 1; xenstore-write /watched/b 2; sleep 0.1; done) & "
               "writer=$!; xenstore-watch -n 3 /watched; kill $writer");
        CHECK((seen.text == "/watched\n/watched/a\n/watched/b\n" || seen.text == "/watched\n/watched/b\n/watched/a\n"));
    }
}

TEST_CASE("A program of libxenstore finds transactions as on Xen") {
    StoreHost host;
    Handle one(host.path(0)), two(host.path(0));
    REQUIRE(one.write("/a", "1"));

    const xs_transaction_t tx = ::xs_transaction_start(one.xs);
    REQUIRE(tx != XBT_NULL);
    CHECK(one.read("/a", tx) == "1");
    CHECK(one.write("/b", "2", tx));
    CHECK(two.read("/b") == "errno " + std::to_string(ENOENT));
    CHECK(::xs_transaction_end(one.xs, tx, false));
    CHECK(two.read("/b") == "2");

    const xs_transaction_t lost = ::xs_transaction_start(one.xs);
    CHECK(one.read("/a", lost) == "1");
    CHECK(two.write("/a", "3"));
    CHECK(one.write("/a", "4", lost));
    CHECK_FALSE(::xs_transaction_end(one.xs, lost, false));
    CHECK(errno == EAGAIN);
    CHECK(two.read("/a") == "3");
}

TEST_CASE("A program of libxenstore lists directories of any size") {
    StoreHost host({}, [](Xenstored& store) {
        for (int i = 0; i < 20000; ++i) REQUIRE(store.write("/huge/child-" + std::to_string(i), ""));
    });
    Handle handle(host.path(0));
    unsigned count = 0;
    std::unique_ptr<char*, decltype(&std::free)> names(::xs_directory(handle.xs, XBT_NULL, "/huge", &count),
                                                       &std::free);
    REQUIRE(names);
    CHECK(count == 20000);
    std::set<std::string> distinct;
    for (unsigned i = 0; i < count; ++i) distinct.insert(names.get()[i]);
    CHECK(distinct.size() == 20000);
    CHECK(distinct.contains("child-19999"));
}

TEST_CASE("A program of libxenstore gets watches, permissions and domain calls") {
    StoreHost host({7});
    Handle dom0(host.path(0)), guest(host.path(7));

    REQUIRE(::xs_introduce_domain(dom0.xs, 7, 1, 1));
    CHECK(::xs_is_domain_introduced(guest.xs, 7));
    CHECK_FALSE(::xs_is_domain_introduced(guest.xs, 8));
    CHECK_FALSE(::xs_introduce_domain(guest.xs, 7, 1, 1));
    CHECK(errno == EACCES);
    std::unique_ptr<char, decltype(&std::free)> home(::xs_get_domain_path(guest.xs, 7), &std::free);
    CHECK(std::string(home.get()) == "/local/domain/7");

    xs_permissions permissions[] = {{.id = 7, .perms = XS_PERM_NONE}, {.id = 0, .perms = XS_PERM_READ}};
    REQUIRE(dom0.write("/local/domain/7/data", ""));
    REQUIRE(::xs_set_permissions(dom0.xs, XBT_NULL, "/local/domain/7/data", permissions, 2));
    unsigned count = 0;
    std::unique_ptr<xs_permissions, decltype(&std::free)> got(
        ::xs_get_permissions(guest.xs, XBT_NULL, "/local/domain/7/data", &count), &std::free);
    REQUIRE(count == 2);
    CHECK(got.get()[0].id == 7);
    CHECK(got.get()[1].perms == XS_PERM_READ);

    REQUIRE(::xs_watch(guest.xs, "data", "token"));
    const auto event = [&] {
        std::unique_ptr<char*, decltype(&std::free)> next(::xs_read_watch(guest.xs, &count), &std::free);
        return std::string(next.get()[XS_WATCH_PATH]) + " " + next.get()[XS_WATCH_TOKEN];
    };
    CHECK(event() == "data token");
    REQUIRE(dom0.write("/local/domain/7/data/x", "1"));
    CHECK(event() == "data/x token");
    CHECK(::xs_unwatch(guest.xs, "data", "token"));
    CHECK_FALSE(::xs_unwatch(guest.xs, "data", "token"));
}
