// Two domains that distrust each other, behind whatever port this run is about. The cases see only this header and the
// port's interface, so the same cases run on every port.
//
// CAISSON_CONFORMANCE in the environment picks the port; one more port is one more `make` function here.
// local (the default): a local hypervisor of its own for each case.
// xen:FRONT:STRANGER: real Xen. This domain is `back`; in the two others (their ids) agents make the calls. So memory
// and channels may be elsewhere, and a case touches them with the words at the end of this file only.
#pragma once

#include <poll.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include "ring/hypervisor.h"
#include "ring/store.h"
#include "ring/xen/port.h"
#include "tests/conformance/far_hypervisor.h"
#include "tests/support/local_xen.h"

namespace caisson::conformance {

using test::need;

struct Side {
    DomainId id{};
    std::unique_ptr<Hypervisor> hypervisor;
    std::string xenstored;      // for Store::open; empty: libxenstore's own choice
    std::function<void()> die;  // the domain is gone, its descriptors are not; empty: it cannot, and the case skips
    std::function<std::unique_ptr<Hypervisor>(Fd)> restricted;  // what a worker does with the result of restrict_to

    Hypervisor* operator->() const { return hypervisor.get(); }
};

struct World {
    Side front, back, stranger;
    bool far = false;             // front and stranger are other domains than this process's
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

World make_xen(const std::string& port);  // world_xen.cpp

inline World make_world() {
    const char* wanted = std::getenv("CAISSON_CONFORMANCE");
    const std::string port = wanted != nullptr ? wanted : "local";
    if (port == "local") return make_local();
    if (port.starts_with("xen:")) return make_xen(port);
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
    if (const FarThing far = far_thing(memory); far.domain != nullptr) {
        REQUIRE(fits(offset, length, memory.size()));
        for (std::size_t at = 0; at < length; at += most_bytes)
            text.replace(at, std::min(most_bytes, length - at),
                         from_hex(far.domain
                                      ->need("peek " + far.handle + " " + std::to_string(far.offset + offset + at) +
                                             " " + std::to_string(std::min(most_bytes, length - at)))
                                      .at(0)));
        return text;
    }
    REQUIRE(memory.copy_out(offset, std::as_writable_bytes(std::span(text))));
    return text;
}
inline void put(SharedSpan memory, std::size_t offset, std::string_view text) {
    if (const FarThing far = far_thing(memory); far.domain != nullptr) {
        REQUIRE(fits(offset, text.size(), memory.size()));
        far.domain->need("poke " + far.handle + " " + std::to_string(far.offset + offset) + " " + to_hex(text));
        return;
    }
    REQUIRE(memory.copy_in(offset, std::as_bytes(std::span(text))));
}
inline std::vector<GrantRef> refs_of(const SharedPages& pages) { return {pages.refs().begin(), pages.refs().end()}; }

// The owner cannot end the pages now; where the port does not tell, ending them here would prove nothing.
inline void check_still_mapped(const Side& owner, SharedPages& pages) {
    if (owner.hypervisor->capabilities().end_tells) CHECK(need(pages.end()) == End::still_mapped);
}

// How often a case repeats itself: on real Xen a call in another domain costs a thousand times one in this process.
inline int rounds(const Case& w, int usual) { return w.far ? std::max(usual / 100, 20) : usual; }

inline bool can_die(const Side& side) {
    if (!side.die) WARN("skipped: domain " << side.id.raw << " cannot be destroyed in this run");
    return side.die != nullptr;
}

inline bool readable(const EventChannel& channel, int patience = 0) {
    if (const FarThing far = far_thing(channel); far.domain != nullptr)
        return far.domain->need("readable " + far.handle + " " + std::to_string(patience)).at(0) == "1";
    pollfd waiting{.fd = channel.wait_fd(), .events = POLLIN, .revents = 0};
    return ::poll(&waiting, 1, patience) == 1 && (waiting.revents & POLLIN) != 0;
}
inline bool notify(const EventChannel& channel, int times = 1) {
    if (const FarThing far = far_thing(channel); far.domain != nullptr)
        return far.domain->need("notify " + far.handle + " " + std::to_string(times)).at(0) == "1";
    for (int i = 0; i < times; ++i)
        if (!channel.notify()) return false;
    return true;
}
inline bool clear(const EventChannel& channel) {
    const FarThing far = far_thing(channel);
    return far.domain != nullptr ? far.domain->need("clear " + far.handle).at(0) == "1" : channel.clear();
}
inline void unmask(const EventChannel& channel) {
    const FarThing far = far_thing(channel);
    far.domain != nullptr ? void(far.domain->need("unmask " + far.handle)) : channel.unmask();
}

}  // namespace caisson::conformance
