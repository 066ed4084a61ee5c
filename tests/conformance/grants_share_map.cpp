// share(), map() and end(): what one domain lets another one see, and how it takes that back.
#include <algorithm>

#include "tests/conformance/world.h"

namespace caisson::conformance {

TEST_CASE("shared pages are zero, and a write on either side is seen on the other") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 3, Access::read_write));
    REQUIRE(pages.refs().size() == 3);
    CHECK(pages.memory().size() == 3 * page_size);
    CHECK(bytes(pages.memory(), 0, 3 * page_size) == std::string(3 * page_size, '\0'));

    auto mapped = need(w.back->map(w.front.id, refs_of(pages), Access::read_write));
    put(pages.memory(), page_size + 5, "from the front");
    CHECK(bytes(mapped.memory(), page_size + 5, 14) == "from the front");
    put(mapped.memory(), 2 * page_size, "from the back");
    CHECK(bytes(pages.memory(), 2 * page_size, 13) == "from the back");
}

TEST_CASE("references map to consecutive addresses in the order given, whatever share they come from") {
    Case w;
    REQUIRE(w.back->capabilities().contiguous_map);
    auto a = need(w.front->share(w.back.id, 2, Access::read_write));
    auto b = need(w.front->share(w.back.id, 3, Access::read_write));
    put(a.memory(), 0, "a0");
    put(a.memory(), page_size, "a1");
    put(b.memory(), 0, "b0");
    put(b.memory(), page_size, "b1");
    put(b.memory(), 2 * page_size, "b2");

    const std::vector<GrantRef> odd{b.refs()[2], a.refs()[0], b.refs()[0], b.refs()[1], a.refs()[1], b.refs()[2]};
    auto mapped = need(w.back->map(w.front.id, odd, Access::read_write));
    REQUIRE(mapped.memory().size() == odd.size() * page_size);
    const char* expected[] = {"b2", "a0", "b0", "b1", "a1", "b2"};
    for (std::size_t i = 0; i < odd.size(); ++i) CHECK(bytes(mapped.memory(), i * page_size, 2) == expected[i]);
}

TEST_CASE("a map of many single-page shares is one contiguous map") {
    Case w;
    std::vector<SharedPages> pages;
    std::vector<GrantRef> refs;
    const auto count = static_cast<std::size_t>(rounds(w, 300));
    for (std::size_t i = 0; i < count; ++i) {
        pages.push_back(need(w.front->share(w.back.id, 1, Access::read_write)));
        put(pages.back().memory(), 0, std::to_string(i) + ".");
        refs.push_back(pages.back().refs()[0]);
    }
    std::reverse(refs.begin(), refs.end());
    auto mapped = need(w.back->map(w.front.id, refs, Access::read_write));
    for (std::size_t i = 0; i < count; ++i) {
        const std::string expected = std::to_string(count - 1 - i) + ".";
        CHECK(bytes(mapped.memory(), i * page_size, expected.size()) == expected);
    }
}

TEST_CASE("a map is all or nothing, and the error names the reference that failed") {
    Case w;
    auto good = need(w.front->share(w.back.id, 2, Access::read_write));
    auto foreign = need(w.front->share(w.stranger.id, 1, Access::read_write));
    const std::vector<GrantRef> refs{good.refs()[0], foreign.refs()[0], good.refs()[1]};
    const auto mapped = w.back->map(w.front.id, refs, Access::read_write);
    REQUIRE_FALSE(mapped);
    CHECK(mapped.error().fault == Fault::peer);
    CHECK(mapped.error().got == foreign.refs()[0].raw);
    CHECK(need(good.end()) == End::ended);  // nothing of it stayed mapped
}

TEST_CASE("a grant can be mapped by its peer only") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    CHECK_FALSE(w.stranger->map(w.front.id, refs_of(pages), Access::read_only));
    CHECK_FALSE(w.back->map(w.stranger.id, refs_of(pages), Access::read_only));
    CHECK(w.back->map(w.front.id, refs_of(pages), Access::read_only));
}

TEST_CASE("pages cannot be ended while they are mapped, and can be afterwards") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    {
        auto mapped = need(w.back->map(w.front.id, refs_of(pages), Access::read_write));
        check_still_mapped(w.front, pages);
        REQUIRE(pages);
        put(pages.memory(), 0, "still there");
        CHECK(bytes(mapped.memory(), 0, 11) == "still there");
    }
    CHECK(need(pages.end()) == End::ended);
    CHECK_FALSE(pages);
    CHECK(need(pages.end()) == End::ended);  // a second time is fine
}

TEST_CASE("pages mapped twice are mapped until both maps are gone") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    auto first = need(w.back->map(w.front.id, refs_of(pages), Access::read_write));
    auto second = std::optional(need(w.back->map(w.front.id, refs_of(pages), Access::read_only)));
    first = {};
    check_still_mapped(w.front, pages);
    second.reset();
    CHECK(need(pages.end()) == End::ended);
}

TEST_CASE("ended pages cannot be mapped again") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    const auto refs = refs_of(pages);
    REQUIRE(need(pages.end()) == End::ended);
    CHECK_FALSE(w.back->map(w.front.id, refs, Access::read_write));
}

TEST_CASE("pages that are dropped while mapped go to quarantine and are never reused meanwhile") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 2, Access::read_write));
    const auto refs = refs_of(pages);
    auto mapped = std::optional(need(w.back->map(w.front.id, refs, Access::read_write)));
    pages = {};
    const std::size_t quarantined = w.front->capabilities().end_tells ? 2 : 0;  // else it is the kernel's
    CHECK(w.front->quarantined_pages() == quarantined);
    w.front->retry_quarantine();
    CHECK(w.front->quarantined_pages() == quarantined);

    put(mapped->memory(), 0, "the peer writes on");
    auto next = need(w.front->share(w.back.id, 2, Access::read_write));
    CHECK(bytes(next.memory(), 0, page_size) == std::string(page_size, '\0'));
    for (GrantRef ref : next.refs()) CHECK(std::find(refs.begin(), refs.end(), ref) == refs.end());

    mapped.reset();
    w.front->retry_quarantine();
    CHECK(w.front->quarantined_pages() == 0);
}

TEST_CASE("shares and maps that make no sense are refused, not clamped") {
    Case w;
    CHECK_FALSE(w.front->share(w.back.id, 0, Access::read_write));
    CHECK_FALSE(w.front->share(w.back.id, 0xFFFFFFFF, Access::read_write));
    CHECK_FALSE(w.front->share(w.back.id, w.front->capabilities().max_pages_per_share + 1, Access::read_write));
    CHECK_FALSE(w.back->map(w.front.id, {}, Access::read_write));
    for (std::uint32_t ref : {0U, 1U, 7U, 0x7FFFFFFFU, 0xFFFFFFFFU})
        CHECK_FALSE(w.back->map(w.front.id, std::vector{GrantRef(ref)}, Access::read_write));
}

}  // namespace caisson::conformance
