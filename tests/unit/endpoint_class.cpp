// An endpoint over a real store, with a device that does nothing and workers that answer when they are told to.
#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "ring/endpoint.h"
#include "tests/support/local_xen.h"

using namespace caisson;
using namespace caisson::test;

namespace {

struct Calls {
    std::vector<std::string> log;
    bool refuse_offer = false, refuse_connect = false;
    std::chrono::milliseconds takes{};  // a connect
};

class Idle final : public DeviceControl {
  public:
    explicit Idle(Calls& calls) : calls_(calls) {}
    Status offer(ControlContext&) override {
        calls_.log.push_back("offer");
        if (calls_.refuse_offer) return host_fault(ENODEV, "no such disk");
        return {};
    }
    Result<Handover> connect(ControlContext&) override {
        calls_.log.push_back("connect");
        std::this_thread::sleep_for(calls_.takes);
        if (calls_.refuse_connect) return peer_fault("ring-ref");
        return Handover{};
    }
    bool connected_at_once() const override { return false; }
    void connected(ControlContext&) override { calls_.log.push_back("connected"); }
    void disconnect(ControlContext&) override { calls_.log.push_back("disconnect"); }
    bool worker_may_publish(std::string_view key) const override { return key == "carrier" || key == "text"; }

  private:
    Calls& calls_;
};

struct Host final : EndpointHost {
    int attaches = 0, detaches = 0;
    std::optional<std::chrono::milliseconds> delay;
    void attach(Handover) override { ++attaches; }
    void detach() override { ++detaches; }
    void update(std::vector<std::byte>) override {}
    void timer(std::optional<std::chrono::milliseconds> d) override { delay = d; }
};

struct Rig {
    explicit Rig(Role role, ConnectPace pace = {}) : role_(role) {
        address.role = role;
        // The peer's directory is in our own domain here: the endpoint cannot tell, and one store is enough.
        address.frontend = address.backend = domain.id;
        need(store.write(own("frontend-id"), std::to_string(domain.id.raw)));
        need(store.write(own("backend-id"), std::to_string(domain.id.raw)));
        if (role == Role::backend) need(store.write(own("online"), "1"));
        endpoint.emplace(address, std::make_unique<Idle>(calls), *domain.hypervisor, store, host, log, pace);
    }
    std::string own(const std::string& key) { return own_directory(address) + "/" + key; }
    std::string state() { return need(store.read(own("state"))).value_or(""); }
    void peer(const char* state) {
        need(store.write(peer_directory(address) + "/state", state));
        endpoint->look();
    }
    std::vector<std::string> called() { return std::exchange(calls.log, {}); }
    using Names = std::vector<std::string>;

    const Role role_;
    LocalXen xen;
    LocalXen::Domain domain = xen.domain();
    Store store = need(Store::open(domain.xenstored));
    DeviceAddress address{.device_class = "echo", .id = DeviceId(3)};
    Calls calls;
    Host host;
    Log log{"test"};
    std::optional<Endpoint> endpoint;
};

}  // namespace

TEST_CASE("directories follow from domain ids, and console 0 is where it has always been") {
    DeviceAddress a{.device_class = "vif",
                    .role = Role::backend,
                    .frontend = DomainId(3),
                    .backend = DomainId(1),
                    .id = DeviceId(0)};
    CHECK(own_directory(a) == "backend/vif/3/0");
    CHECK(peer_directory(a) == "/local/domain/3/device/vif/0");
    a.role = Role::frontend;
    CHECK(own_directory(a) == "device/vif/0");
    CHECK(peer_directory(a) == "/local/domain/1/backend/vif/3/0");
    a.device_class = "console";
    CHECK(own_directory(a) == "console");
    a.id = DeviceId(1);
    CHECK(own_directory(a) == "device/console/1");
    a.id = DeviceId(0);
    a.role = Role::backend;
    CHECK(peer_directory(a) == "/local/domain/3/console");
    CHECK(own_directory(a) == "backend/console/3/0");
}

TEST_CASE("a backend is Connected only when its worker serves") {
    Rig rig(Role::backend);
    rig.peer("1");
    CHECK(rig.state() == "2");
    rig.peer("4");
    CHECK(rig.host.attaches == 1);
    CHECK(rig.state() == "2");
    rig.endpoint->attached();
    CHECK(rig.state() == "4");
    CHECK(rig.called() == Rig::Names{"offer", "connect", "connected"});
    rig.peer("5");
    CHECK(rig.host.detaches == 1);
    CHECK(rig.called().empty());  // not before the worker has let go
    rig.endpoint->detached();
    CHECK(rig.called() == Rig::Names{"disconnect"});
    CHECK(rig.state() == "5");
    rig.peer("6");
    CHECK(rig.state() == "6");
    rig.peer("1");
    CHECK(rig.state() == "2");
}

namespace {
void connect_and_close(Rig& rig) {
    rig.peer("1");
    rig.peer("4");
    rig.endpoint->attached();
    rig.peer("6");
    rig.endpoint->detached();
}
}  // namespace

TEST_CASE("a peer that connects again and again waits: so often at once, and not once more") {
    Rig rig(Role::backend, {.at_once = 3, .interval = std::chrono::hours(1)});
    for (int i = 0; i < 3; ++i) connect_and_close(rig);
    CHECK(rig.host.attaches == 3);
    rig.peer("1");
    for (int i = 0; i < 5; ++i) {
        rig.peer("4");
        rig.endpoint->expired();  // too early
    }
    CHECK(rig.host.attaches == 3);
    CHECK(rig.state() == "6");
    REQUIRE(rig.host.delay);
    CHECK(*rig.host.delay > std::chrono::minutes(50));
}

TEST_CASE("a backend whose directory was removed and made again while nobody looked begins anew") {
    Rig rig(Role::backend);
    rig.peer("1");
    REQUIRE(rig.state() == "2");
    SECTION("before its frontend had come") {
        need(rig.store.write(rig.own("state"), "1"));
        rig.endpoint->look();
        CHECK(rig.state() == "2");
    }
    SECTION("with its frontend connected") {
        rig.peer("4");
        rig.endpoint->attached();
        REQUIRE(rig.state() == "4");
        need(rig.store.write(rig.own("state"), "1"));
        rig.peer("1");
        rig.endpoint->detached();
        CHECK(rig.state() == "2");
        rig.peer("4");
        rig.endpoint->attached();
        CHECK(rig.state() == "4");
    }
}

TEST_CASE("a peer that never connects waits for our offers, too") {
    Rig rig(Role::backend, {.at_once = 3, .interval = std::chrono::hours(1)});
    rig.peer("1");
    for (int i = 0; i < 20; ++i) {
        rig.peer("5");
        rig.peer("1");
        rig.endpoint->expired();
    }
    CHECK(std::ranges::count(rig.called(), "offer") == 3);
}

TEST_CASE("a peer whose connecting takes us long waits ten times as long before the next") {
    Rig rig(Role::backend, {.at_once = 1, .interval = std::chrono::milliseconds(1)});
    rig.calls.takes = std::chrono::milliseconds(50);
    connect_and_close(rig);
    rig.peer("1");
    REQUIRE(rig.host.delay);
    CHECK(*rig.host.delay > std::chrono::milliseconds(200));
}

TEST_CASE("a peer that had to wait is connected in its turn") {
    Rig rig(Role::backend, {.at_once = 1, .interval = std::chrono::milliseconds(100)});
    connect_and_close(rig);
    rig.peer("1");
    for (int i = 0; i < 100 && rig.state() != "2"; ++i) {
        std::this_thread::sleep_for(rig.host.delay.value_or(std::chrono::milliseconds(0)));
        rig.endpoint->expired();
    }
    rig.peer("4");
    CHECK(rig.host.attaches == 2);
    rig.endpoint->attached();
    CHECK(rig.state() == "4");
}

TEST_CASE("a frontend of a class that waits shows Initialised, then Connected") {
    Rig rig(Role::frontend);
    rig.endpoint->look();
    CHECK(rig.state() == "1");
    rig.peer("2");
    rig.endpoint->attached();
    CHECK(rig.state() == "3");
    rig.peer("4");
    CHECK(rig.state() == "4");
    CHECK(rig.called() == Rig::Names{"offer", "connect", "connected"});
    // The backend starts over.
    rig.peer("2");
    rig.endpoint->detached();
    CHECK(rig.called() == Rig::Names{"disconnect", "offer", "connect"});
}

TEST_CASE("a device that cannot be offered is Closing, then Closed, and says why") {
    Rig rig(Role::backend);
    rig.calls.refuse_offer = true;
    rig.peer("1");
    CHECK(rig.state() == "5");
    CHECK(rig.called() == Rig::Names{"offer"});
    rig.endpoint->look();
    CHECK(rig.called().empty());  // not again and again: the peer has to move first
    const auto why = need(rig.store.read("error/" + own_directory(rig.address) + "/error")).value_or("");
    CHECK(why.find("no such disk") != std::string::npos);
}

TEST_CASE("a frontend that cannot connect does not try again before the backend moves") {
    Rig rig(Role::frontend);
    rig.calls.refuse_connect = true;
    rig.peer("2");
    CHECK(rig.state() == "5");
    CHECK(rig.called() == Rig::Names{"offer", "connect", "disconnect"});
    rig.endpoint->look();
    rig.endpoint->expired();
    rig.endpoint->look();
    CHECK(rig.state() == "6");
    CHECK(rig.called().empty());
    rig.peer("6");
    rig.calls.refuse_connect = false;
    rig.peer("2");
    CHECK(rig.called() == Rig::Names{"offer", "connect"});
}

TEST_CASE("a peer that does not answer our Closing gets a Closed when patience ends, and may begin anew") {
    Rig rig(Role::backend);
    rig.peer("1");
    rig.calls.refuse_connect = true;
    rig.peer("4");
    CHECK(rig.state() == "5");
    REQUIRE(rig.host.delay);
    CHECK(*rig.host.delay == Endpoint::close_patience);
    rig.endpoint->expired();
    CHECK(rig.state() == "6");
    CHECK_FALSE(rig.host.delay);
    rig.called();
    rig.peer("4");  // still claims to be connected: nothing of it is read again
    CHECK(rig.called().empty());
    rig.calls.refuse_connect = false;
    rig.peer("1");
    CHECK(rig.state() == "2");
    CHECK(rig.called() == Rig::Names{"offer"});
}

TEST_CASE("a toolstack that wants the device gone lets the frontend finish first") {
    Rig rig(Role::backend);
    rig.peer("1");
    rig.peer("4");
    rig.endpoint->attached();
    need(rig.store.write(rig.own("online"), "0"));
    need(rig.store.write(rig.own("state"), "5"));
    rig.endpoint->look();
    CHECK(rig.state() == "5");
    CHECK(rig.host.detaches == 0);  // still served
    rig.peer("6");
    CHECK(rig.host.detaches == 1);
    rig.endpoint->detached();
    CHECK(rig.state() == "6");
    CHECK(*rig.host.delay == Endpoint::remove_delay);
    rig.peer("1");  // nobody is invited any more
    CHECK(rig.state() == "6");
    rig.endpoint->expired();
    CHECK(rig.state().empty());
}

TEST_CASE("a directory that vanishes is not written into again") {
    Rig rig(Role::backend);
    rig.peer("1");
    rig.peer("4");
    rig.endpoint->attached();
    need(rig.store.remove(own_directory(rig.address)));
    rig.endpoint->publish("carrier", "1");
    rig.endpoint->remove();
    CHECK_FALSE(rig.endpoint->finished());
    rig.endpoint->detached();
    CHECK(rig.endpoint->finished());
    CHECK(rig.called().back() == "disconnect");
    CHECK(need(rig.store.list(own_directory(rig.address))).empty());
}

TEST_CASE("a worker publishes the keys that its class leaves to it, and no others: most are the toolstack's") {
    Rig rig(Role::backend);
    rig.peer("1");
    rig.peer("4");
    rig.endpoint->attached();
    rig.endpoint->publish("carrier", "1");
    CHECK(need(rig.store.read(rig.own("carrier"))) == "1");
    need(rig.store.write(rig.own("params"), "/disk"));
    // A worker that was taken over would have its controller open another file, or enforce another address.
    for (const char* key : {"state", "online", "frontend-id", "../x", "a/b", "", "UPPER", "hotplug-status", "params",
                            "mode", "log", "path", "ip", "mac", "bridge", "caisson-rate-iops"})
        rig.endpoint->publish(key, "9");
    CHECK(need(rig.store.read(rig.own("params"))) == "/disk");
    for (const char* key : {"mode", "log", "path", "ip", "mac", "bridge", "caisson-rate-iops"})
        CHECK(!need(rig.store.read(rig.own(key))));
    rig.endpoint->publish("text", "a\nb");
    CHECK(rig.state() == "4");
    CHECK(need(rig.store.read(rig.own("online"))) == "1");
    CHECK(!need(rig.store.read(rig.own("text"))));
    CHECK(!need(rig.store.read(rig.own("UPPER"))));
}

TEST_CASE("a worker that fails to attach, or breaks later, closes the device once") {
    Rig rig(Role::backend);
    rig.peer("1");
    rig.peer("4");
    SECTION("fails") { rig.endpoint->failed(host_fault(ENOMEM, "map").error()); }
    SECTION("breaks") {
        rig.endpoint->attached();
        rig.endpoint->broken(peer_fault("ring").error());
        rig.endpoint->broken(peer_fault("ring").error());
    }
    CHECK(rig.state() == "5");
    CHECK(rig.host.detaches == 1);
    rig.endpoint->attached();  // too late
    CHECK(rig.state() == "5");
    rig.endpoint->detached();
    rig.peer("6");
    CHECK(rig.state() == "6");
}
