// protocols/console.h against console.h: offsets at compile time, and our byte rings in one page with a peer that works
// on struct xencons_interface as stock drivers do.
#include <catch2/catch.hpp>
#include <string>

#include "protocols/console.h"
#include "ring/byte_ring.h"
#include "tests/abi/xen_ring_headers.h"

namespace caisson::console {
namespace {

static_assert(in_offset == offsetof(xencons_interface, in) && in_bytes == sizeof(xencons_interface::in));
static_assert(out_offset == offsetof(xencons_interface, out) && out_bytes == sizeof(xencons_interface::out));
static_assert(in_consumer == offsetof(xencons_interface, in_cons) &&
              in_producer == offsetof(xencons_interface, in_prod) &&
              out_consumer == offsetof(xencons_interface, out_cons) &&
              out_producer == offsetof(xencons_interface, out_prod));
static_assert(connection_offset == sizeof(xencons_interface), "the newer byte comes right behind the indices");

constexpr ByteRingLayout in_layout{
    .data = in_offset, .size = in_bytes, .consumer = in_consumer, .producer = in_producer};
constexpr ByteRingLayout out_layout{
    .data = out_offset, .size = out_bytes, .consumer = out_consumer, .producer = out_producer};

struct Page {
    alignas(64) std::byte bytes[page_size] = {};
    xencons_interface* shared() { return reinterpret_cast<xencons_interface*>(bytes); }
    SharedSpan span() { return detail::SharedAccess::span(bytes, sizeof bytes); }
};

// What a stock frontend or backend does, byte by byte, for one direction.
template <std::size_t Size>
std::size_t put(char (&ring)[Size], std::uint32_t cons, std::uint32_t& prod, std::string_view text) {
    std::size_t sent = 0;
    while (sent < text.size() && prod - cons < Size) ring[MASK_XENCONS_IDX(prod++, ring)] = text[sent++];
    return sent;
}
template <std::size_t Size>
std::string take(const char (&ring)[Size], std::uint32_t& cons, std::uint32_t prod) {
    std::string text;
    while (cons != prod) text += ring[MASK_XENCONS_IDX(cons++, ring)];
    return text;
}

std::string pattern(std::size_t length, std::size_t seed) {
    std::string text(length, ' ');
    for (std::size_t i = 0; i < length; ++i) text[i] = static_cast<char>('!' + (i * 7 + seed) % 90);
    return text;
}

constexpr std::uint32_t near_the_wrap = 0xFFFFFA00u;

}  // namespace

TEST_CASE("our consumer reads what a stock frontend writes, across the wrap and when full") {
    Page page;
    page.shared()->out_cons = page.shared()->out_prod = near_the_wrap;
    std::uint32_t consumed = near_the_wrap;
    ByteConsumer ours(page.span(), out_layout, consumed);
    for (std::size_t round = 0; round < 50; ++round) {
        const std::string text = pattern(round * 97 % 3000, round);
        const std::size_t sent = put(page.shared()->out, page.shared()->out_cons, page.shared()->out_prod, text);
        CHECK(sent == std::min(text.size(), out_bytes));
        std::string got(out_bytes, '\0');
        got.resize(ours.read(std::as_writable_bytes(std::span(got))).value());
        REQUIRE(got == text.substr(0, sent));
        CHECK(page.shared()->out_cons == page.shared()->out_prod);
    }
}

TEST_CASE("a stock frontend reads what our producer writes, across the wrap and when full") {
    Page page;
    page.shared()->in_cons = page.shared()->in_prod = near_the_wrap;
    std::uint32_t produced = near_the_wrap;
    ByteProducer ours(page.span(), in_layout, produced);
    for (std::size_t round = 0; round < 50; ++round) {
        const std::string text = pattern(round * 61 % 1500, round);
        const std::size_t sent = ours.write(std::as_bytes(std::span(text))).value();
        CHECK(sent == std::min(text.size(), in_bytes));
        REQUIRE(take(page.shared()->in, page.shared()->in_cons, page.shared()->in_prod) == text.substr(0, sent));
    }
}

}  // namespace caisson::console
