#include <poll.h>

#include <catch2/catch.hpp>

#include "ring/store.h"
#include "tests/support/local_xen.h"

using namespace caisson;

TEST_CASE("a domain that the toolstack introduces is announced once, to Dom0 only") {
    test::LocalXen xen;
    const auto dom0 = xen.dom0();
    const auto guest = xen.domain();
    Store toolstack = test::need(Store::open(dom0.xenstored)), own = test::need(Store::open(guest.xenstored));
    REQUIRE(toolstack.watch("@introduceDomain", "announced"));
    const auto heard = [&] {
        int events = 0;
        for (pollfd wait{.fd = toolstack.fd(), .events = POLLIN, .revents = 0}; ::poll(&wait, 1, 300) > 0;)
            while (toolstack.take_event()) ++events;
        return events;
    };
    CHECK(heard() == 1);  // every watch fires when it is set
    CHECK_FALSE(own.introduce(guest.id));
    CHECK(heard() == 0);
    CHECK(toolstack.introduce(guest.id));
    CHECK(heard() == 1);
}
