// The hypervisor connection of a working device's worker is lost: the device comes back.
#include <poll.h>

#include <catch2/catch.hpp>

#include "ring/local/message.h"
#include "tests/support/controller_rig.h"

using namespace caisson;
using namespace caisson::test;

namespace {

// Keeps a duplicate of every restricted connection, so that the test can make the broker drop it.
class Tapped final : public Hypervisor {
  public:
    using Taps = std::vector<Fd>;
    Tapped(std::unique_ptr<Hypervisor> inner, std::shared_ptr<Taps> taps, std::shared_ptr<std::mutex> lock)
        : inner_(std::move(inner)), taps_(std::move(taps)), lock_(std::move(lock)) {}

    DomainId self() const override { return inner_->self(); }
    Capabilities capabilities() const override { return inner_->capabilities(); }
    int connection() const override { return inner_->connection(); }
    Result<SharedPages> share(DomainId peer, std::uint32_t pages, Access access) override {
        return inner_->share(peer, pages, access);
    }
    Result<SharedPages> adopt(DomainId peer, Fd descriptor, std::vector<GrantRef> refs) override {
        return inner_->adopt(peer, std::move(descriptor), std::move(refs));
    }
    Result<SharedPages> reclaim(GrantRef first) override { return inner_->reclaim(first); }
    Result<MappedPages> map(DomainId peer, std::span<const GrantRef> refs, Access access) override {
        return inner_->map(peer, refs, access);
    }
    Status copy(std::span<GrantCopy> batch) override { return inner_->copy(batch); }
    SharedSpan view(const GrantRange& range, Access access, GrantStatus& status) override {
        return inner_->view(range, access, status);
    }
    Result<EventChannel> allocate_unbound(DomainId peer) override { return inner_->allocate_unbound(peer); }
    Result<EventChannel> bind_interdomain(DomainId peer, Port remote) override {
        return inner_->bind_interdomain(peer, remote);
    }
    void close(EventChannel channel) override { inner_->close(std::move(channel)); }
    Result<Fd> restrict_to(std::span<const DomainId> peers) override {
        auto made = inner_->restrict_to(peers);
        if (!made) return made;
        const std::lock_guard guard(*lock_);
        taps_->push_back(need(made->duplicate()));
        return made;
    }
    std::size_t quarantined_pages() const override { return inner_->quarantined_pages(); }
    void retry_quarantine() override { inner_->retry_quarantine(); }

  protected:  // never called: pages and maps belong to the inner one
    Result<End> end(SharedPages&) override { return End::ended; }
    void quarantine(SharedPages&&) override {}
    void unmap(std::uint64_t, SharedSpan) override {}

  private:
    std::unique_ptr<Hypervisor> inner_;
    std::shared_ptr<Taps> taps_;
    std::shared_ptr<std::mutex> lock_;
};

struct Tap {
    std::shared_ptr<Tapped::Taps> taps = std::make_shared<Tapped::Taps>();
    std::shared_ptr<std::mutex> lock = std::make_shared<std::mutex>();
    ControllerThread::Wrap wrap() {
        return [=, this](std::unique_ptr<Hypervisor> inner) {
            return std::make_unique<Tapped>(std::move(inner), taps, lock);
        };
    }
    std::size_t count() const {
        const std::lock_guard guard(*lock);
        return taps->size();
    }
    // A message that is none: the broker closes its end.
    void drop_last() const {
        const std::lock_guard guard(*lock);
        REQUIRE(local::send(taps->back().get(), std::as_bytes(std::span("?", 1))) == 0);
    }
};

struct Devices {
    explicit Devices(ControllerThread::Where where)
        : devd(back, {.backends = true}, where, statistics("back"), back_tap.wrap()),
          frontd(front, {.frontends = true}, where, statistics("front"), front_tap.wrap()) {
        toolstack.attach(back.id, front.id, 0);
        REQUIRE(eventually([&] { return toolstack.connected(back.id, front.id, 0) && served() > 5; }));
    }
    std::string statistics(const std::string& name) const {
        std::filesystem::create_directory(xen.directory() + "/" + name);
        return xen.directory() + "/" + name;
    }
    std::uint64_t served() const {
        return counter([](const DeviceStats& all) { return all.queue[0].requests.get(); });
    }
    std::uint64_t restarts() const {
        return counter([](const DeviceStats& all) { return all.restarts.get(); });
    }
    std::uint64_t counter(const std::function<std::uint64_t(const DeviceStats&)>& which) const {
        const std::string path = xen.directory() + "/back/echo-backend-" + std::to_string(front.id.raw) + "-0";
        const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        void* map = ::mmap(nullptr, sizeof(DeviceStats), PROT_READ, MAP_SHARED, file.get(), 0);
        if (map == MAP_FAILED) return 0;
        const std::uint64_t value = which(*static_cast<const DeviceStats*>(map));
        ::munmap(map, sizeof(DeviceStats));
        return value;
    }
    bool comes_back() {
        if (!eventually([&] { return toolstack.connected(back.id, front.id, 0); })) return false;
        const auto before = served();
        return eventually([&] { return served() > before + 5; });
    }

    LocalXen xen;
    LocalXen::Domain back = xen.domain(), front = xen.domain();
    Toolstack toolstack{xen};
    Tap back_tap, front_tap;
    ControllerThread devd, frontd;
};

}  // namespace

TEST_CASE("a backend whose worker loses its hypervisor connection goes on from its journal with another one") {
    const auto where = GENERATE(ControllerThread::Where::processes, ControllerThread::Where::this_thread);
    Devices devices(where);
    const int connects = echo_calls(Role::backend).connects;
    for (int i = 1; i <= 3; ++i) {
        devices.back_tap.drop_last();
        REQUIRE(eventually([&] { return devices.restarts() == static_cast<std::uint64_t>(i); }));
        CHECK(devices.back_tap.count() == static_cast<std::size_t>(i) + 1);
        CHECK(devices.comes_back());
        // The successor counts in the journal of its predecessor.
        const std::string path = Toolstack::back(devices.back.id, devices.front.id, 0) + "/attaches";
        CHECK(eventually([&] { return devices.toolstack.read(path) == std::to_string(i + 1); }));
    }
    CHECK(echo_calls(Role::backend).connects == connects);  // the frontend has not noticed
}

TEST_CASE("a frontend whose worker loses its hypervisor connection starts over, for its grants went with it") {
    const auto where = GENERATE(ControllerThread::Where::processes, ControllerThread::Where::this_thread);
    Devices devices(where);
    for (int i = 1; i <= 3; ++i) {
        const int connects = echo_calls(Role::frontend).connects;
        devices.front_tap.drop_last();
        REQUIRE(eventually([&] { return echo_calls(Role::frontend).connects == connects + 1; }));
        CHECK(devices.comes_back());
    }
}

TEST_CASE("a worker that finds its hypervisor connection unusable lets its controller see it end") {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    const Fd broker(ends[0]), controllers(need(Fd(::dup(ends[1])).duplicate()));
    std::thread liar([&] {
        pollfd ready{.fd = broker.get(), .events = POLLIN, .revents = 0};
        (void)::poll(&ready, 1, 10'000);
        (void)local::send(broker.get(), std::as_bytes(std::span("?", 1)));
    });
    CHECK_FALSE(local::open_restricted(Fd(ends[1])));
    liar.join();
    pollfd seen{.fd = controllers.get(), .events = 0, .revents = 0};
    CHECK(::poll(&seen, 1, 0) == 1);
    CHECK((seen.revents & POLLHUP) != 0);
}
