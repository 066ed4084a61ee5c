// Two domains that distrust each other, behind whatever port this run is about. The cases see only this header and the
// port's interface, so the same cases run on every port.
//
// Local (the default): a local hypervisor of its own for each case. Another port is one more `make` function here, and
// CAISSON_CONFORMANCE=name in the environment picks it.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include "ring/hypervisor.h"
#include "ring/store.h"
#include "tests/support/local_xen.h"

namespace caisson::conformance {

using test::need;

struct Side {
    DomainId id{};
    std::unique_ptr<Hypervisor> hypervisor;
    std::string xenstored;                                      // for Store::open; empty: libxenstore's own choice
    std::function<void()> die;                                  // the domain is gone, its descriptors are not
    std::function<std::unique_ptr<Hypervisor>(Fd)> restricted;  // what a worker does with the result of restrict_to

    Hypervisor* operator->() const { return hypervisor.get(); }
};

struct World {
    Side front, back, stranger;
    std::shared_ptr<void> keeps;  // the hypervisor, where it is ours
};

inline World make_local() {
    auto xen = std::make_shared<test::LocalXen>();
    const auto side = [&] {
        auto domain = std::make_shared<test::LocalXen::Domain>(xen->domain());
        return Side{.id = domain->id,
                    .hypervisor = std::move(domain->hypervisor),
                    .xenstored = domain->xenstored,
                    .die = [xen = xen.get(), domain] { xen->destroy(*domain); },
                    .restricted = [](Fd fd) { return need(local::open_restricted(std::move(fd))); }};
    };
    World world{.front = side(), .back = side(), .stranger = side(), .keeps = nullptr};
    world.keeps = std::move(xen);
    return world;
}

inline World make_world() {
    const char* wanted = std::getenv("CAISSON_CONFORMANCE");
    const std::string port = wanted != nullptr ? wanted : "local";
    if (port == "local") return make_local();
    throw std::runtime_error("CAISSON_CONFORMANCE=" + port + ": no such port here");
}

// Declared first in a case: the hypervisor outlives everything that is made in it.
struct Case : World {
    Case() : World(make_world()) {}
    ~Case() {
        front.hypervisor.reset();
        back.hypervisor.reset();
        stranger.hypervisor.reset();
    }
};

// ---- Words for the cases ----

inline std::string bytes(SharedSpan memory, std::size_t offset, std::size_t length) {
    std::string text(length, '\0');
    REQUIRE(memory.copy_out(offset, std::as_writable_bytes(std::span(text))));
    return text;
}
inline void put(SharedSpan memory, std::size_t offset, std::string_view text) {
    REQUIRE(memory.copy_in(offset, std::as_bytes(std::span(text))));
}
inline std::vector<GrantRef> refs_of(const SharedPages& pages) { return {pages.refs().begin(), pages.refs().end()}; }

}  // namespace caisson::conformance
