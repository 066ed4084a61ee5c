// A backend whose xenstore keys lie, and that changes its mind between two connections.
#include <catch2/catch.hpp>

#include "frontends/net/attachment_socket.h"
#include "frontends/net/link.h"
#include "frontends/net/net.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::test;

namespace {

// The control half in a guest, and the directory that its backend writes.
struct Offered {
    explicit Offered(unsigned queues = 8)
        : control(net::make_frontend_control(
              {.queues = queues, .attachment = [this, queues](const DeviceAddress&, std::optional<net::Mac>) {
                   return net::frontend::open_sockets(ends, queues);
               }})) {
        need(store.make_directory(own.path()));
        need(back_store.make_directory(path()));
        need(back_store.set_permissions(path(), {{.domain = back.id}, {.domain = front.id, .read = true}}));
        offer("feature-rx-copy", "1");
    }
    ~Offered() { disconnect(); }
    std::string path() const { return "/local/domain/" + std::to_string(back.id.raw) + "/backend/vif/1/0"; }
    void offer(const std::string& key, const std::string& value) { need(back_store.write(path() + "/" + key, value)); }
    ControlContext context() { return {*front.hypervisor, own, peer, address, log}; }
    Result<net::frontend::Link> connect() {
        auto lent = context();
        auto handover = control->connect(lent);
        if (!handover) return std::unexpected(handover.error());
        std::vector<Fd> none;
        return HandoverReader({handover->bytes().begin(), handover->bytes().end()}, std::move(none))
            .value<net::frontend::Link>();
    }
    void disconnect() {
        auto lent = context();
        control->disconnect(lent);
    }
    bool has(const std::string& key) { return need(store.read(own.path() + "/" + key)).has_value(); }

    LocalXen xen;
    LocalXen::Domain front = xen.domain(), back = xen.domain();
    Store store = need(Store::open(front.xenstored)), back_store = need(Store::open(back.xenstored));
    DeviceAddress address{.device_class = "vif", .role = Role::frontend, .frontend = front.id, .backend = back.id};
    Directory own{store, "/local/domain/" + std::to_string(front.id.raw) + "/device/vif/0"};
    Directory peer{store, path()};
    Log log{"vif under test"};
    net::frontend::SocketEnds ends;
    std::unique_ptr<DeviceControl> control;
};

}  // namespace

TEST_CASE("B7 what a backend writes is strict decimal, or the connection fails and leaves nothing") {
    Offered offered;
    const auto grants = offered.xen.info(offered.front.id).grants;
    for (const char* key :
         {"feature-rx-copy", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-no-csum-offload",
          "feature-ipv6-csum-offload", "feature-split-event-channels", "multi-queue-max-queues", "feature-ctrl-ring",
          "feature-multicast-control", "feature-dynamic-multicast-control"}) {
        for (const std::string& value :
             {std::string(), std::string("-1"), std::string("2x"), std::string(" 1"), std::string("0x1"),
              std::string("99999999999999999999"), std::string(2000, '1')}) {
            offered.offer(key, value);
            const auto link = offered.connect();
            INFO(key << " = " << value);
            CHECK(!link);
            CHECK(offered.xen.info(offered.front.id).grants == grants);
            CHECK(!offered.has("tx-ring-ref"));
        }
        offered.offer(key, "1");
    }
    CHECK(offered.connect());
}

TEST_CASE("B7 generous numbers are clamped to ours, and a backend without rx-copy is refused") {
    Offered offered;
    offered.offer("multi-queue-max-queues", "4294967295");
    const auto link = offered.connect();
    REQUIRE(link);
    CHECK(link->queues == net::max_queues);
    offered.disconnect();
    offered.offer("multi-queue-max-queues", "0");
    CHECK(!offered.connect());
    offered.offer("multi-queue-max-queues", "1");
    offered.offer("feature-rx-copy", "0");
    CHECK(!offered.connect());
}

TEST_CASE(
    "xsa_465_a backend that returns with fewer features is negotiated with anew, and nothing of the old remains") {
    Offered offered;
    const auto before = offered.xen.info(offered.front.id);
    for (const char* key : {"feature-sg", "feature-gso-tcpv4", "feature-ipv6-csum-offload", "feature-gso-tcpv6",
                            "feature-split-event-channels", "feature-ctrl-ring"})
        offered.offer(key, "1");
    for (const unsigned queues : {8u, 2u, 1u, 4u, 1u}) {
        offered.offer("multi-queue-max-queues", std::to_string(queues));
        offered.offer("feature-sg", queues % 4 == 0 ? "1" : "0");
        const auto link = offered.connect();
        REQUIRE(link);
        CHECK(link->queues == queues);
        CHECK(link->receive_hash == (queues > 1));
        CHECK(link->peer.gso_tcpv4 == (queues % 4 == 0));  // no GSO without scatter-gather
        CHECK(link->largest == (queues % 4 == 0 ? net::max_packet : 1518));
        CHECK(offered.has("tx-ring-ref") == (queues == 1));
        CHECK(offered.has("event-channel-tx") == (queues == 1));
        CHECK(offered.has("queue-0/tx-ring-ref") == (queues > 1));
        CHECK(offered.has("queue-" + std::to_string(queues) + "/tx-ring-ref") == false);
        CHECK(offered.has("ctrl-ring-ref") == (queues > 1));
        offered.disconnect();
        CHECK(offered.xen.info(offered.front.id).grants == before.grants);
        CHECK(offered.xen.info(offered.front.id).ports == before.ports);
        CHECK(!offered.ends.up);
    }
}

TEST_CASE("xsa_465_any order of calls leaves a device that can still connect") {
    Offered offered;
    auto lent = offered.context();
    for (unsigned order = 0; order < 243; ++order) {
        for (unsigned step = 0, rest = order; step < 5; ++step, rest /= 3) {
            switch (rest % 3) {
                case 0: offered.control->disconnect(lent); break;
                case 1: offered.control->connected(lent), (void)offered.control->changed(lent); break;
                case 2: (void)offered.control->offer(lent); break;
            }
        }
    }
    CHECK(offered.connect());
}
