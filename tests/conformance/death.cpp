// A domain dies: what it had is released, and whoever comes after it inherits nothing.
#include "tests/conformance/world.h"

namespace caisson::conformance {

TEST_CASE("the death of a mapper lets the owner end its pages") {
    Case w;
    if (!can_die(w.front)) return;
    auto pages = need(w.back->share(w.front.id, 1, Access::read_write));
    auto mapped = need(w.front->map(w.back.id, refs_of(pages), Access::read_write));
    check_still_mapped(w.back, pages);
    w.front.die();
    CHECK(need(pages.end()) == End::ended);
}

TEST_CASE(
    "the death of an owner leaves the mapper its memory, and the grants end at the latest with the last mapping") {
    Case w;
    if (!can_die(w.front)) return;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    const auto refs = refs_of(pages);
    put(pages.memory(), 0, "last words");
    auto mapped = need(w.back->map(w.front.id, refs, Access::read_write));
    GrantStatus status{};
    const GrantRange range{.domain = w.front.id, .ref = refs[0], .offset = 0, .length = 4};
    if (w.back->capabilities().direct_view) {
        (void)w.back->view(range, Access::read_only, status);
        CHECK(status == GrantStatus::okay);
    }
    w.front.die();
    CHECK(bytes(mapped.memory(), 0, 10) == "last words");  // no SIGBUS, no surprise
    // Real Xen keeps a dead domain, and its grants, for as long as any page of it is mapped; and then a moment.
    mapped = {};
    bool ended = false;
    for (int i = 0; i < 600 && !ended; ++i) {
        ended = !w.back->map(w.front.id, refs, Access::read_only);
        if (!ended) ::usleep(100'000);
    }
    CHECK(ended);
    std::byte byte{};
    GrantCopy element{.direction = GrantCopy::Direction::from_peer, .source = range, .local = &byte};
    need(w.back->copy({&element, 1}));
    CHECK(element.status == GrantStatus::bad_reference);
}

TEST_CASE("the death of one side of a channel is noticed by the other and leaves nothing to bind") {
    Case w;
    if (!can_die(w.front)) return;
    auto front = need(w.front->allocate_unbound(w.back.id));
    auto back = need(w.back->bind_interdomain(w.front.id, front.port()));
    auto waiting = need(w.front->allocate_unbound(w.back.id));
    clear(front);
    w.front.die();
    CHECK_FALSE(w.back->bind_interdomain(w.front.id, waiting.port()));
    (void)notify(back);
    w.back->close(std::move(back));
    auto next = need(w.back->allocate_unbound(w.stranger.id));
    CHECK(need(w.stranger->bind_interdomain(w.back.id, next.port())));
}

TEST_CASE("the dead can do nothing more") {
    Case w;
    if (w.far) {
        WARN(
            "skipped: a dead domain of real Xen makes no calls, and Xen does not look whether a grant is for a living "
            "one");
        return;
    }
    w.back.die();
    CHECK_FALSE(w.back->share(w.front.id, 1, Access::read_write));
    CHECK_FALSE(w.back->allocate_unbound(w.front.id));
    CHECK_FALSE(w.front->share(w.back.id, 1, Access::read_write));
    CHECK_FALSE(w.front->allocate_unbound(w.back.id));
}

}  // namespace caisson::conformance
