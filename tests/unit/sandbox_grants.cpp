#include <catch2/catch.hpp>

#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::test;

TEST_CASE("the hypervisor descriptor of a worker reaches its own peer's grants and nobody else's") {
    LocalXen xen;
    auto back = xen.domain(), served = xen.domain(), stranger = xen.domain();
    const auto its = need(served.hypervisor->share(back.id, 1, Access::read_write));
    const auto others = need(stranger.hypervisor->share(back.id, 1, Access::read_write));

    const DomainId peers[] = {served.id};
    auto worker = need(local::open_restricted(need(back.hypervisor->restrict_to(peers))));
    CHECK(worker->map(served.id, its.refs(), Access::read_write));
    CHECK_FALSE(worker->map(stranger.id, others.refs(), Access::read_write));

    std::array<std::byte, 16> local{};
    std::array<GrantCopy, 1> batch{{{.direction = GrantCopy::Direction::from_peer,
                                     .source = {.domain = stranger.id, .ref = others.refs()[0], .length = 16},
                                     .local = local.data()}}};
    const Status copied = worker->copy(batch);
    CHECK((!copied || batch[0].status != GrantStatus::okay));
    GrantStatus status = GrantStatus::okay;
    CHECK(worker->view(batch[0].source, Access::read_only, status).empty());
    CHECK(status != GrantStatus::okay);
    CHECK_FALSE(worker->share(stranger.id, 1, Access::read_only));
    CHECK_FALSE(worker->bind_interdomain(served.id, Port(1)));
    CHECK_FALSE(worker->restrict_to(std::array{stranger.id}));
}
