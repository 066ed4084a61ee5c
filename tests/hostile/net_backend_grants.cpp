// The same backend worker over the real local hypervisor: grants that are ended, refused or taken back at any moment,
// and a guest that dies.
#include <catch2/catch.hpp>

#include "tests/support/local_xen.h"
#include "tests/support/net_backend_alone.h"

using namespace caisson;
using namespace caisson::test;

namespace {

const net::Mac other{{0x00, 0x16, 0x3E, 0, 0, 2}};

// A guest's pages as grants of a real domain.
class XenMemory final : public GuestMemory {
  public:
    Pages share(std::uint32_t count, Access access) override {
        grants.push_back(need(front.hypervisor->share(back.id, count, access)));
        Pages out{.refs = {}, .memory = grants.back().memory()};
        for (const GrantRef ref : grants.back().refs()) out.refs.push_back(ref.raw);
        return out;
    }
    Hypervisor& backend() override { return *back.hypervisor; }

    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain();  // ids 1 and 2, as the fixture's device says
    std::vector<SharedPages> grants;
};

struct Guest {
    bool crosses() {
        const auto packet = ethernet(3000, backend.options.mac, other);
        (void)data.memory.copy_in(0, packet);
        backend.queue().tx.add({.gref = data.refs[0], .offset = 0, .flags = 0, .id = 5, .size = 3000});
        backend.queue().tx.show();
        backend.turns();
        const auto frame = backend.host_receives();
        const auto answers = backend.queue().tx.take_all();
        return frame && frame->bytes == packet && answers.size() == 1 && answers[0].status == net::status::okay;
    }
    XenMemory memory;
    BackendAlone backend{memory};
    GuestMemory::Pages data = memory.share(1, Access::read_only);
};

}  // namespace

TEST_CASE("xsa_396 a grant that was used can be ended, and what it named is not reached afterwards") {
    Guest guest;
    REQUIRE(guest.memory.back.id == DomainId(1));
    REQUIRE(guest.memory.front.id == DomainId(2));
    REQUIRE(guest.crosses());
    REQUIRE(need(guest.memory.grants.back().end()) == End::ended);
    guest.backend.queue().tx.add({.gref = guest.data.refs[0], .offset = 0, .flags = 0, .id = 6, .size = 60});
    guest.backend.queue().tx.show();
    guest.backend.turns();
    const auto answers = guest.backend.queue().tx.take_all();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].status == net::status::error);
    CHECK_FALSE(guest.backend.host_receives());
    guest.data = guest.memory.share(1, Access::read_only);
    CHECK(guest.crosses());
}

TEST_CASE("xsa_362 read-only and ended receive buffers are given back as errors on real grants") {
    Guest guest;
    const auto good = guest.memory.share(4, Access::read_write);
    const auto ended = guest.memory.share(1, Access::read_write);
    REQUIRE(need(guest.memory.grants.back().end()) == End::ended);
    for (const std::uint32_t ref : {guest.data.refs[0], ended.refs[0]}) guest.backend.post(ref, 1);
    for (unsigned i = 0; i < 4; ++i) guest.backend.post(good.refs[i], static_cast<std::uint16_t>(10 + i));
    for (unsigned i = 0; i < 40; ++i) guest.backend.post(0xFFFFFFF0, 99);
    guest.backend.queue().rx.show();
    guest.backend.turns();
    const auto packet = ethernet(100, other, guest.backend.options.mac);
    for (unsigned i = 0; i < 60; ++i) {
        (void)guest.backend.host_sends(packet);
        guest.backend.turns();
    }
    unsigned errors = 0, received = 0;
    for (const auto& answer : guest.backend.queue().rx.take_all()) ++(answer.status < 0 ? errors : received);
    CHECK(errors >= 2);
    CHECK(received <= 4);
    CHECK_FALSE(guest.backend.broken());
    CHECK(guest.crosses());
}

TEST_CASE("xsa_371 a guest that dies under load leaves the worker standing and nothing mapped") {
    Guest guest;
    REQUIRE(guest.crosses());
    guest.memory.xen.destroy(guest.memory.front);
    for (unsigned i = 0; i < 5; ++i) {
        guest.backend.queue().tx.add({.gref = guest.data.refs[0], .offset = 0, .flags = 0, .id = 7, .size = 60});
        guest.backend.queue().tx.show();
        (void)guest.backend.host_sends(ethernet(60, other, guest.backend.options.mac));
        guest.backend.turns();
    }
    guest.backend.worker.reset();
    CHECK(guest.memory.xen.info(guest.memory.back.id).mappings == 0);
}
