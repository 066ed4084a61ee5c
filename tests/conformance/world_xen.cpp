// The world of a case on real Xen: this domain and two others.
#include <map>

#include "tests/conformance/world.h"

namespace caisson::conformance {

namespace {

// Dom0 destroys a domain when we ask for it (tests/lab/scenarios/conformance.sh), where it says that it would.
std::function<void()> death_of(const std::shared_ptr<FarDomain>& domain) {
    return [domain] {
        Store store = need(Store::open(""));
        need(store.write("data/kill", std::to_string(domain->id().raw)));
        for (int i = 0; need(store.read("data/killed")) != std::to_string(domain->id().raw); ++i) {
            if (i == 600) throw std::runtime_error("Dom0 did not destroy the domain");
            ::usleep(100'000);
        }
        domain->bury();
    };
}

}  // namespace

World make_xen(const std::string& port) {
    unsigned front = 0, stranger = 0;
    if (std::sscanf(port.c_str(), "xen:%u:%u", &front, &stranger) != 2) throw std::runtime_error("xen:FRONT:STRANGER");
    struct Keeps {
        std::vector<std::unique_ptr<FarStore>> stores;
        std::shared_ptr<xen::GrantDevice> grants;
    };
    auto keeps = std::make_shared<Keeps>();
    keeps->grants = std::make_shared<xen::GrantDevice>(need(xen::GrantDevice::open()));
    World world;
    world.far = true;
    auto own = need(xen::open());
    const Capabilities capabilities = own->capabilities();
    const auto far = [&](unsigned id) {
        static std::map<unsigned, std::shared_ptr<FarDomain>> lines;  // of all cases
        auto& domain = lines[id];
        if (!domain) domain = std::make_shared<FarDomain>(DomainId(static_cast<std::uint16_t>(id)));
        domain->reset();
        keeps->stores.push_back(std::make_unique<FarStore>(domain));
        return Side{.id = domain->id(),
                    .hypervisor = make_far_hypervisor(domain, capabilities),
                    .xenstored = keeps->stores.back()->path(),
                    .die = std::getenv("CAISSON_CONFORMANCE_DEATH") != nullptr ? death_of(domain) : nullptr,
                    .restricted = {}};
    };
    world.front = far(front);
    world.stranger = far(stranger);
    const DomainId self = own->self();
    need(need(Store::open("")).remove("data/case"));
    world.back = {
        .id = self,
        .hypervisor = std::move(own),
        .xenstored = "",
        .die = {},
        .restricted = [grants = keeps->grants](Fd fd) { return need(xen::open_restricted(std::move(fd), *grants)); }};
    world.keeps = std::move(keeps);
    return world;
}

}  // namespace caisson::conformance
