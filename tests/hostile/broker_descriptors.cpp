// The broker holds a descriptor for each region and two for each port, and has only so many.
#include <catch2/catch.hpp>

#include "tests/support/local_xen.h"

namespace caisson {

using test::LocalXen;
using test::need;

TEST_CASE("a domain that takes all descriptors of the hypervisor leaves the others their share") {
    LocalXen xen({.descriptors = 80});
    auto greedy = xen.domain(), modest = xen.domain(), peer = xen.domain();
    std::vector<SharedPages> taken;
    for (int i = 0; i < 200; ++i) {
        auto pages = greedy.hypervisor->share(peer.id, 1, Access::read_write);
        if (!pages) {
            CHECK(pages.error().err == ENOSPC);
            CHECK(pages.error().message().find("descriptors") != std::string::npos);
            break;
        }
        taken.push_back(std::move(*pages));
    }
    CHECK(taken.size() > 40);
    CHECK(taken.size() < 80);
    CHECK_FALSE(greedy.hypervisor->allocate_unbound(peer.id));
    CHECK_FALSE(greedy.hypervisor->restrict_to(std::vector{peer.id}));

    auto pages = need(modest.hypervisor->share(peer.id, 1, Access::read_write));
    auto port = need(modest.hypervisor->allocate_unbound(peer.id));
    CHECK(peer.hypervisor->map(modest.id, pages.refs(), Access::read_write));
    CHECK(peer.hypervisor->bind_interdomain(modest.id, port.port()));

    taken.clear();
    CHECK(greedy.hypervisor->allocate_unbound(peer.id));
}

}  // namespace caisson
