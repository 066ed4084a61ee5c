// Another domain of the same user has filled the kernel with descriptors in sockets: nobody innocent loses anything.
#include "tests/support/crowded_kernel.h"
#include "tests/support/local_xen.h"

namespace caisson {

using test::CrowdedKernel;
using test::LocalXen;
using test::need;

TEST_CASE("when descriptors cannot be sent the asker is told so, keeps its connection, and nothing was done") {
    CrowdedKernel kernel;
    if (!kernel.possible()) return;
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    auto pages = need(front.hypervisor->share(back.id, 2, Access::read_write));
    auto port = need(front.hypervisor->allocate_unbound(back.id));
    auto mapped = need(back.hypervisor->map(front.id, pages.refs(), Access::read_write));
    const auto second = need(front.hypervisor->share(back.id, 1, Access::read_write));
    const local::DomainInfo front_before = xen.info(front.id), back_before = xen.info(back.id);

    kernel.crowd();
    REQUIRE(CrowdedKernel::crowded());
    const auto refused = [](const auto& result) { return !result && result.error().err == EAGAIN; };
    CHECK(refused(front.hypervisor->share(back.id, 1, Access::read_write)));
    CHECK(refused(front.hypervisor->share(back.id, 1, Access::read_only)));
    CHECK(refused(front.hypervisor->reclaim(pages.refs()[0])));
    CHECK(refused(front.hypervisor->allocate_unbound(back.id)));
    CHECK(refused(back.hypervisor->bind_interdomain(front.id, port.port())));
    CHECK(refused(back.hypervisor->map(front.id, pages.refs(), Access::read_only)));  // mapped already: stays so
    CHECK(refused(back.hypervisor->map(front.id, second.refs(), Access::read_write)));
    CHECK(refused(back.hypervisor->restrict_to(std::vector{front.id})));
    GrantStatus status{};
    CHECK(back.hypervisor
              ->view({.domain = front.id, .ref = second.refs()[0], .offset = 0, .length = 8}, Access::read_only, status)
              .empty());

    const local::DomainInfo front_then = xen.info(front.id), back_then = xen.info(back.id);
    CHECK(front_then.grants == front_before.grants);
    CHECK(front_then.ports == front_before.ports);
    CHECK(front_then.connections == front_before.connections);
    CHECK(back_then.mappings == back_before.mappings);
    CHECK(back_then.ports == back_before.ports);
    CHECK(back_then.connections == back_before.connections);

    kernel.relieve();
    CHECK(front.hypervisor->share(back.id, 1, Access::read_only));
    CHECK(front.hypervisor->allocate_unbound(back.id));
    CHECK(back.hypervisor->bind_interdomain(front.id, port.port()));
    CHECK(back.hypervisor->map(front.id, second.refs(), Access::read_write));
    CHECK(back.hypervisor->restrict_to(std::vector{front.id}));
    CHECK_FALSE(
        back.hypervisor
            ->view({.domain = front.id, .ref = second.refs()[0], .offset = 0, .length = 8}, Access::read_only, status)
            .empty());
    mapped = {};
    xen.stop();
    CHECK(xen.broker().hypercalls().grants().exact());
}

TEST_CASE("descriptors are soon taken: a call that found no room for them is tried again and succeeds") {
    CrowdedKernel kernel;
    if (!kernel.possible()) return;
    LocalXen xen;
    auto front = xen.domain(), back = xen.domain();
    int succeeded = 0;
    for (int i = 0; i < 50; ++i) {
        kernel.crowd();
        std::thread relief([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            kernel.relieve();
        });
        succeeded += front.hypervisor->allocate_unbound(back.id).has_value();
        relief.join();
    }
    CHECK(succeeded > 0);
    CHECK(xen.info(front.id).ports == static_cast<std::uint32_t>(succeeded));
}

}  // namespace caisson
