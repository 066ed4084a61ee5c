#include <catch2/catch.hpp>

#include <array>
#include <random>
#include <string>

#include "ring/byte_ring.h"
#include "ring/event_ring.h"

using namespace caisson;

namespace {

constexpr ByteRingLayout layout{.data = 0, .size = 1024, .consumer = 3072, .producer = 3076};

struct Pair {
    alignas(4096) std::array<std::byte, 4096> page{};
    std::uint32_t produced = 0, consumed = 0;
    SharedSpan shared = detail::SharedAccess::span(page.data(), page.size());
    explicit Pair(std::uint32_t start = 0) : produced(start), consumed(start) {
        word(layout.consumer) = word(layout.producer) = start;
    }
    std::uint32_t& word(std::size_t offset) { return *reinterpret_cast<std::uint32_t*>(page.data() + offset); }
    ByteProducer producer() { return {shared, layout, produced}; }
    ByteConsumer consumer() { return {shared, layout, consumed}; }
};

}  // namespace

TEST_CASE("bytes arrive whole and in order, in every chunk size and across the wrap of the index") {
    for (const std::uint32_t start : {0u, 0xFFFFFE00u}) {
        Pair pair(start);
        auto producer = pair.producer();
        auto consumer = pair.consumer();
        std::uint8_t sent = 0, seen = 0;
        for (std::size_t chunk = 1; chunk <= 1500; ++chunk) {
            std::vector<std::byte> out(chunk), in(1500);
            for (auto& b : out) b = std::byte{sent++};
            const auto wrote = producer.write(out);
            REQUIRE(wrote == std::min<std::size_t>(chunk, 1024));
            sent = static_cast<std::uint8_t>(sent - (chunk - *wrote));
            REQUIRE(consumer.read(in) == *wrote);
            for (std::size_t i = 0; i < *wrote; ++i) REQUIRE(in[i] == std::byte{seen++});
        }
    }
}

TEST_CASE("a full byte ring takes nothing and an empty one gives nothing") {
    Pair pair;
    auto producer = pair.producer();
    auto consumer = pair.consumer();
    std::array<std::byte, 2000> buffer{};
    CHECK(consumer.read(buffer) == 0u);
    CHECK(producer.write(buffer) == 1024u);
    CHECK(producer.write(buffer) == 0u);
    CHECK(consumer.available() == 1024u);
}

TEST_CASE("xsa_86_an index that says more than the ring holds breaks it") {
    for (const std::uint32_t lie : {1025u, 0x80000000u, 0xFFFFFFFFu}) {
        Pair pair;
        std::array<std::byte, 16> buffer{};
        pair.word(layout.producer) = lie;
        auto consumer = pair.consumer();
        CHECK_FALSE(consumer.read(buffer));
        pair.word(layout.producer) = 1;
        CHECK_FALSE(consumer.read(buffer));  // stays broken
        auto producer = pair.producer();
        pair.word(layout.consumer) = 0u - lie;
        CHECK_FALSE(producer.write(buffer));
    }
}

TEST_CASE("events arrive in order, a full ring refuses, a lie breaks it") {
    struct Event {
        std::uint32_t number, zero;
    };
    constexpr EventRingLayout events{.events = 64, .count = 5, .consumer = 0, .producer = 4};
    alignas(4096) std::array<std::byte, 4096> page{};
    const auto shared = detail::SharedAccess::span(page.data(), page.size());
    std::uint32_t produced = 0, consumed = 0, next = 0, seen = 0;
    EventProducer<Event> producer(shared, events, produced);
    EventConsumer<Event> consumer(shared, events, consumed);
    for (int round = 0; round < 100; ++round) {
        for (int i = 0; i < 5; ++i) REQUIRE(producer.push({next++, 0}) == true);
        REQUIRE(producer.push({0, 0}) == false);
        REQUIRE(consumer.drain(~0u, [&](Untrusted<Event>&& event) {
            REQUIRE(std::move(event).check([](const Event& e) { return std::uint64_t{e.number}; }) == seen++);
        }) == 5u);
    }
    *reinterpret_cast<std::uint32_t*>(page.data() + 4) = produced + 6;
    CHECK_FALSE(consumer.drain(~0u, [](auto&&) {}));
    CHECK(consumer.broken());
}
