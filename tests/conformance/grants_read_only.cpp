// A read-only grant: the peer reads, whatever it tries; the owner writes on.
#include "tests/conformance/world.h"

namespace caisson::conformance {

TEST_CASE("a read-only grant can be mapped for reading, and shows what the owner writes") {
    Case w;
    REQUIRE(w.back->capabilities().read_only_map);
    auto pages = need(w.front->share(w.back.id, 2, Access::read_only));
    put(pages.memory(), 0, "before the map");
    auto mapped = need(w.back->map(w.front.id, refs_of(pages), Access::read_only));
    CHECK(bytes(mapped.memory(), 0, 14) == "before the map");
    put(pages.memory(), page_size, "after the map");
    CHECK(bytes(mapped.memory(), page_size, 13) == "after the map");
}

TEST_CASE("a read-only grant cannot be mapped for writing") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_only));
    const auto mapped = w.back->map(w.front.id, refs_of(pages), Access::read_write);
    REQUIRE_FALSE(mapped);
    CHECK(mapped.error().fault == Fault::peer);
    CHECK(need(pages.end()) == End::ended);
}

TEST_CASE("a map for writing that names one read-only page maps nothing") {
    Case w;
    auto writable = need(w.front->share(w.back.id, 1, Access::read_write));
    auto read_only = need(w.front->share(w.back.id, 1, Access::read_only));
    const std::vector<GrantRef> refs{writable.refs()[0], read_only.refs()[0]};
    CHECK_FALSE(w.back->map(w.front.id, refs, Access::read_write));
    CHECK(need(writable.end()) == End::ended);
    CHECK(need(read_only.end()) == End::ended);
}

TEST_CASE("a copy into a read-only grant is refused, a copy from it is not") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_only));
    put(pages.memory(), 0, "keep");
    std::byte local[4]{};
    GrantCopy batch[2];
    batch[0] = {.direction = GrantCopy::Direction::to_peer,
                .target = {.domain = w.front.id, .ref = pages.refs()[0], .offset = 0, .length = 4},
                .local = local};
    batch[1] = {.direction = GrantCopy::Direction::from_peer,
                .source = {.domain = w.front.id, .ref = pages.refs()[0], .offset = 0, .length = 4},
                .local = local};
    need(w.back->copy(batch));
    CHECK(batch[0].status == GrantStatus::bad_reference);  // Xen's word for it is the one for a grant of others, too
    CHECK(batch[1].status == GrantStatus::okay);
    CHECK(bytes(pages.memory(), 0, 4) == "keep");
    CHECK(std::memcmp(local, "keep", 4) == 0);
}

}  // namespace caisson::conformance
