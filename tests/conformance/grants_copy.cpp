// copy() and view(): bytes by reference, with a status each.
#include "tests/conformance/world.h"

namespace caisson::conformance {

namespace {

using enum GrantCopy::Direction;

GrantRange range(const Side& side, GrantRef ref, std::uint16_t offset, std::uint16_t length) {
    return {.domain = side.id, .ref = ref, .offset = offset, .length = length};
}

}  // namespace

TEST_CASE("copies go both ways, and a bad element spoils no other") {
    Case w;
    REQUIRE(w.back->capabilities().copy);
    auto pages = need(w.front->share(w.back.id, 2, Access::read_write));
    auto foreign = need(w.front->share(w.stranger.id, 1, Access::read_write));
    put(pages.memory(), page_size + 100, "hello");
    std::byte in[5]{}, out[3]{std::byte{'a'}, std::byte{'b'}, std::byte{'c'}}, unused[8]{};

    GrantCopy batch[6];
    batch[0] = {.direction = from_peer, .source = range(w.front, GrantRef(0xFFFFFF), 0, 8), .local = unused};
    batch[1] = {.direction = from_peer, .source = range(w.front, pages.refs()[1], 100, 5), .local = in};
    batch[2] = {.direction = from_peer, .source = range(w.front, foreign.refs()[0], 0, 8), .local = unused};
    batch[3] = {.direction = to_peer, .target = range(w.front, pages.refs()[0], 4093, 3), .local = out};
    batch[4] = {.direction = to_peer, .target = range(w.front, pages.refs()[0], 4094, 3), .local = out};
    batch[5] = {.direction = from_peer, .source = range(w.front, pages.refs()[0], 0xFFFF, 0xFFFF), .local = unused};
    need(w.back->copy(batch));

    CHECK(batch[0].status == GrantStatus::bad_reference);
    CHECK(batch[1].status == GrantStatus::okay);
    CHECK(batch[2].status == GrantStatus::bad_reference);
    CHECK(batch[3].status == GrantStatus::okay);
    CHECK(batch[4].status == GrantStatus::bad_range);
    CHECK(batch[5].status == GrantStatus::bad_range);
    CHECK(std::memcmp(in, "hello", 5) == 0);
    CHECK(bytes(pages.memory(), 4093, 3) == "abc");
    CHECK(bytes(pages.memory(), page_size, 1) == std::string(1, '\0'));  // nothing ran over the page's end
    for (std::byte b : unused) CHECK(b == std::byte{});
}

TEST_CASE("a whole page and nothing at all are legal copies") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    std::vector<std::byte> page(page_size, std::byte{'x'});
    GrantCopy batch[3];
    batch[0] = {.direction = to_peer, .target = range(w.front, pages.refs()[0], 0, page_size), .local = page.data()};
    batch[1] = {.direction = to_peer, .target = range(w.front, pages.refs()[0], page_size, 0), .local = page.data()};
    batch[2] = {.direction = from_peer, .source = range(w.front, pages.refs()[0], 0, 0), .local = page.data()};
    need(w.back->copy(batch));
    for (const GrantCopy& element : batch) CHECK(element.status == GrantStatus::okay);
    CHECK(bytes(pages.memory(), 0, page_size) == std::string(page_size, 'x'));
    need(w.back->copy({}));
}

TEST_CASE("a copy from one peer to another one is one element") {
    Case w;
    auto source = need(w.front->share(w.back.id, 1, Access::read_only));
    auto target = need(w.stranger->share(w.back.id, 1, Access::read_write));
    auto fixed = need(w.stranger->share(w.back.id, 1, Access::read_only));
    put(source.memory(), 8, "packet");
    GrantCopy batch[3];
    batch[0] = {.direction = peer_to_peer,
                .source = range(w.front, source.refs()[0], 8, 6),
                .target = range(w.stranger, target.refs()[0], 200, 6)};
    batch[1] = {.direction = peer_to_peer,
                .source = range(w.front, source.refs()[0], 8, 6),
                .target = range(w.stranger, fixed.refs()[0], 0, 6)};
    batch[2] = {.direction = peer_to_peer,
                .source = range(w.front, GrantRef(1), 8, 6),
                .target = range(w.stranger, target.refs()[0], 0, 6)};
    need(w.back->copy(batch));
    CHECK(batch[0].status == GrantStatus::okay);
    CHECK(batch[1].status == GrantStatus::bad_reference);
    CHECK(batch[2].status == GrantStatus::bad_reference);
    CHECK(bytes(target.memory(), 200, 6) == "packet");
    CHECK(bytes(fixed.memory(), 0, 6) == std::string(6, '\0'));
}

TEST_CASE("after end() a copy fails, also where it worked before") {
    Case w;
    auto pages = need(w.front->share(w.back.id, 1, Access::read_write));
    const GrantRef ref = pages.refs()[0];
    std::byte byte{};
    GrantCopy element{.direction = from_peer, .source = range(w.front, ref, 0, 1), .local = &byte};
    need(w.back->copy({&element, 1}));
    REQUIRE(element.status == GrantStatus::okay);

    CHECK(need(pages.end()) == End::ended);  // a copy is no mapping: it does not keep the owner from ending
    need(w.back->copy({&element, 1}));
    CHECK(element.status == GrantStatus::bad_reference);

    // The number may come back for other pages; then it means those.
    std::vector<SharedPages> again;
    for (int i = 0; i < 20; ++i) {
        again.push_back(need(w.front->share(w.back.id, 1, Access::read_write)));
        if (again.back().refs()[0] != ref) continue;
        put(again.back().memory(), 0, "n");
        need(w.back->copy({&element, 1}));
        CHECK(element.status == GrantStatus::okay);
        CHECK(byte == std::byte{'n'});
    }
}

TEST_CASE("a view is the peer's memory in place, for as long as it is granted") {
    Case w;
    if (!w.back->capabilities().direct_view) {
        WARN("skipped: this port has no direct view");
        return;
    }
    auto pages = need(w.front->share(w.back.id, 2, Access::read_write));
    auto read_only = need(w.front->share(w.back.id, 1, Access::read_only));
    GrantStatus status{};
    const SharedSpan seen = w.back->view(range(w.front, pages.refs()[1], 10, 20), Access::read_write, status);
    REQUIRE(status == GrantStatus::okay);
    REQUIRE(seen.size() == 20);
    put(seen, 0, "in place");
    CHECK(bytes(pages.memory(), page_size + 10, 8) == "in place");

    CHECK(w.back->view(range(w.front, read_only.refs()[0], 0, 1), Access::read_write, status).empty());
    CHECK(status == GrantStatus::bad_reference);
    CHECK(w.back->view(range(w.front, read_only.refs()[0], 0, 1), Access::read_only, status).size() == 1);
    CHECK(w.back->view(range(w.front, pages.refs()[0], 4090, 7), Access::read_only, status).empty());
    CHECK(status == GrantStatus::bad_range);

    const GrantRef ended = pages.refs()[1];
    CHECK(need(pages.end()) == End::ended);
    CHECK(w.back->view(range(w.front, ended, 10, 20), Access::read_only, status).empty());
    CHECK(status == GrantStatus::bad_reference);
}

}  // namespace caisson::conformance
