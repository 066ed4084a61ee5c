// Grants in more than one process of a domain: adopted pages, restricted connections, and successors of the dead.
#include "tests/conformance/world.h"

namespace caisson::conformance {

namespace {

Fd copy_of(const Fd& fd) { return need(fd.duplicate()); }

// What a process holds when it is killed: no destructor runs. Kept in sight of the leak checker.
template <class T>
const T& never_destroyed(T value) {
    static auto* const graves = new std::vector<T*>;
    return *graves->emplace_back(new T(std::move(value)));
}

}  // namespace

TEST_CASE("adopted pages are the same pages, and their end ends nothing") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 2, Access::read_write));
    auto mapped = need(w.back->map(w.front.id, refs_of(pages), Access::read_write));
    {
        auto adopted = need(w.front->adopt(w.back.id, Fd(::dup(pages.descriptor())), refs_of(pages)));
        put(adopted.memory(), page_size, "adopted");
        CHECK(bytes(mapped.memory(), page_size, 7) == "adopted");
    }
    CHECK(w.front->quarantined_pages() == 0);
    put(pages.memory(), 0, "still shared");
    CHECK(bytes(mapped.memory(), 0, 12) == "still shared");
    mapped = {};
    CHECK(need(pages.end()) == End::ended);
}

TEST_CASE("a restricted connection does the grant calls with its peers") {
    Case w;
    const auto worker = w.back.restricted(need(w.back->restrict_to(std::vector{w.front.id})));
    CHECK(worker->self() == w.back.id);
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    put(pages.memory(), 0, "ring");
    auto mapped = need(worker->map(w.front.id, refs_of(pages), Access::read_write));
    CHECK(bytes(mapped.memory(), 0, 4) == "ring");
    check_still_mapped(w.front, pages);

    auto own = need(worker->share(w.front.id, 1, Access::read_only));
    auto theirs = need(w.front->map(w.back.id, refs_of(own), Access::read_only));
    put(own.memory(), 0, "answer");
    CHECK(bytes(theirs.memory(), 0, 6) == "answer");

    if (!worker->capabilities().direct_view) return;
    GrantStatus status{};
    CHECK_FALSE(
        worker
            ->view({.domain = w.front.id, .ref = pages.refs()[0], .offset = 0, .length = 4}, Access::read_only, status)
            .empty());
}

TEST_CASE("a restricted connection does nothing else") {
    Case w;
    const auto worker = w.back.restricted(need(w.back->restrict_to(std::vector{w.front.id})));
    if (worker->capabilities().peers_enforced) {
        auto for_us = need(w.stranger->share(w.back.id, 1, Access::read_write));
        CHECK_FALSE(worker->map(w.stranger.id, refs_of(for_us), Access::read_write));
        CHECK_FALSE(worker->share(w.stranger.id, 1, Access::read_write));
        GrantStatus status{};
        CHECK(worker
                  ->view({.domain = w.stranger.id, .ref = for_us.refs()[0], .offset = 0, .length = 4},
                         Access::read_only, status)
                  .empty());
    }
    CHECK_FALSE(worker->allocate_unbound(w.front.id));
    auto port = need(w.front->allocate_unbound(w.back.id));
    CHECK_FALSE(worker->bind_interdomain(w.front.id, port.port()));
    CHECK_FALSE(worker->restrict_to(std::vector{w.front.id}));

    // Nor can it end what the controller shared.
    auto controllers = need(w.back->share(w.front.id, 1, Access::read_write));
    CHECK_FALSE(worker->reclaim(controllers.refs()[0]));
}

TEST_CASE("what a dead worker had mapped does not count once its successor has begun") {
    Case w;
    const Fd connection = need(w.back->restrict_to(std::vector{w.front.id}));
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    {
        const auto worker = w.back.restricted(copy_of(connection));
        never_destroyed(need(worker->map(w.front.id, refs_of(pages), Access::read_write)));
    }
    check_still_mapped(w.front, pages);  // the connection is open: the controller has it

    const auto successor = w.back.restricted(copy_of(connection));
    {
        auto once = need(successor->map(w.front.id, refs_of(pages), Access::read_write));
        auto twice = need(successor->map(w.front.id, refs_of(pages), Access::read_write));
        check_still_mapped(w.front, pages);
    }
    CHECK(need(pages.end()) == End::ended);
}

TEST_CASE("a successor takes over what its predecessor shared") {
    Case w;
    const Fd connection = need(w.back->restrict_to(std::vector{w.front.id}));
    GrantRef writable{}, read_only{};
    {
        const auto worker = w.back.restricted(copy_of(connection));
        const SharedPages& shared = never_destroyed(need(worker->share(w.front.id, 2, Access::read_write)));
        put(shared.memory(), 0, "from the dead");
        writable = shared.refs()[0];
        read_only = never_destroyed(need(worker->share(w.front.id, 1, Access::read_only))).refs()[0];
    }
    const auto successor = w.back.restricted(copy_of(connection));
    auto shared = need(successor->reclaim(writable));
    CHECK(shared.peer() == w.front.id);
    REQUIRE(shared.refs().size() == 2);
    CHECK(bytes(shared.memory(), 0, 13) == "from the dead");
    auto mapped = need(w.front->map(w.back.id, refs_of(shared), Access::read_write));
    put(shared.memory(), page_size, "and the living");
    CHECK(bytes(mapped.memory(), page_size, 14) == "and the living");

    auto fixed = need(successor->reclaim(read_only));
    CHECK(fixed.access() == Access::read_only);
    CHECK(fixed.memory().empty());
    CHECK(need(fixed.end()) == End::ended);
    check_still_mapped(w.back, shared);
    mapped = {};
    CHECK(need(shared.end()) == End::ended);
    CHECK_FALSE(successor->reclaim(writable));
}

TEST_CASE("when the last copy of a restricted connection closes, all it had is released") {
    Case w;
    if (!w.back->capabilities().end_tells) {
        WARN("skipped: on this port a mapping goes with its process, and the dead of this case is none");
        return;
    }
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    std::vector<GrantRef> shared;
    {
        Fd connection = need(w.back->restrict_to(std::vector{w.front.id}));
        const auto worker = w.back.restricted(std::move(connection));
        never_destroyed(need(worker->map(w.front.id, refs_of(pages), Access::read_write)));
        shared = refs_of(never_destroyed(need(worker->share(w.front.id, 1, Access::read_write))));
    }
    End tried = End::still_mapped;
    for (int i = 0; i < 2000 && tried == End::still_mapped; ++i) {  // the close travels
        tried = need(pages.end());
        if (tried == End::still_mapped) ::usleep(1000);
    }
    CHECK(tried == End::ended);
    CHECK_FALSE(w.front->map(w.back.id, shared, Access::read_only));
}

}  // namespace caisson::conformance
