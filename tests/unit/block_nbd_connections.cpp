// The controller's part of a disk's NBD connections: which one is renewed, and which is left alone.
#include <poll.h>

#include <catch2/catch.hpp>

#include "backends/block/nbd_connections.h"
#include "tests/support/local_xen.h"
#include "tests/support/nbdkit.h"

using namespace caisson;
using namespace caisson::test;
using namespace caisson::block::backend;

namespace {

bool ended(const Fd& connection) {
    pollfd ready{.fd = connection.get(), .events = POLLIN, .revents = 0};
    return ::poll(&ready, 1, 5000) == 1;
}
bool silent(const Fd& connection) {
    pollfd ready{.fd = connection.get(), .events = POLLIN, .revents = 0};
    return ::poll(&ready, 1, 100) == 0;
}

}  // namespace

TEST_CASE("only the last NBD connection is renewed, and one that is used is not read from") {
    Nbdkit server({"memory", "1M"});
    if (server.pid < 0) {
        WARN("skipped: nbdkit is not installed");
        return;
    }
    auto connections = need(NbdConnections::make(need(parse_target("nbd:unix:" + server.socket))));
    connections->begin({.sectors = 2048}, false);
    const Fd first = need(connections->next());
    need(connections->renew(0));  // of a connection that nobody knows any more
    CHECK_FALSE(need(take_connection(connections->line())));
    CHECK(silent(first));

    need(connections->renew(connection_number(first)));
    CHECK(ended(first));
    const auto second = need(take_connection(connections->line()));
    REQUIRE(second);
    need(connections->renew(connection_number(first)));  // asked before the second one was there
    CHECK_FALSE(need(take_connection(connections->line())));
    CHECK(silent(*second));
}
