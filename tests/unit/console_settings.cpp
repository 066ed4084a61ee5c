// From a toolstack's keys to settings, and the names that may become files.
#include <catch2/catch.hpp>

#include "protocols/console.h"

namespace caisson::console {

TEST_CASE("libxl's keys choose the host") {
    CHECK(parse({})->host == HostKind::pty);
    CHECK(parse({.output = "pty"})->host == HostKind::pty);
    CHECK(parse({.output = "none"})->host == HostKind::none);
    CHECK(parse({.output = "chardev:libxl-channel0"})->host == HostKind::pty);
    CHECK(parse({.output = "chardev:libxl-channel0", .connection = "pty"})->host == HostKind::pty);
    CHECK(parse({.output = "chardev:libxl-channel0", .connection = "socket"})->host == HostKind::socket);
    CHECK_FALSE(parse({.output = "telnet"}));
    CHECK_FALSE(parse({.connection = "serial"}));
}

TEST_CASE("limits are brought into their range, and a queue is a power of two") {
    CHECK(parse({})->limit == 1 << 20);
    CHECK(parse({.limit = 0})->limit == least_limit);
    CHECK(parse({.limit = 5000})->limit == 8192);
    CHECK(parse({.limit = 0xFFFFFFFF})->limit == most_limit);
    CHECK(parse({.log_limit = 1})->log_limit == least_log_limit);
}

TEST_CASE("paths are absolute and go nowhere else; names are names") {
    CHECK(parse({.connection = "socket", .path = "/run/a.sock"})->socket_path == "/run/a.sock");
    for (const char* path : {"a.sock", "/", "/a/../b", "/a/..", "/a b", "/a\n", "/a/"}) {
        CHECK_FALSE(parse({.connection = "socket", .path = path}));
        CHECK_FALSE(parse({.log = path}));
    }
    CHECK_FALSE(parse({.connection = "socket", .path = "/" + std::string(107, 'a')}));
    CHECK(valid_name("org.qemu.guest_agent.0"));
    for (const char* name : {"", ".", ".hidden", "a/b", "a b", "a\xff"}) CHECK_FALSE(valid_name(name));
    CHECK_FALSE(valid_name(std::string(65, 'a')));
}

TEST_CASE("console 0 has its own place in xenstore") {
    CHECK(xenstore_path(DeviceId(0)) == "console");
    CHECK(xenstore_path(DeviceId(12)) == "device/console/12");
}

}  // namespace caisson::console
