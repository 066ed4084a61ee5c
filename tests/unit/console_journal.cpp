// The backend's journal: whatever store a death falls on, the successor sees the state before the step or after it.
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "backends/console/journal.h"

namespace caisson::console {
namespace {

constexpr std::uint32_t capacity = 4096;

std::string text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string take_all(Journal& journal) {
    std::string all;
    for (auto piece = journal.take(1000); !piece.empty(); piece = journal.take(1000)) all += text_of(piece);
    return all;
}

}  // namespace

TEST_CASE("what is pushed comes out in order, once, and the oldest goes when there is too much") {
    std::vector<std::byte> memory(Journal::bytes(capacity));
    auto journal = Journal::start(memory, capacity, {.queue_end = 0xFFFFFFF0}, 0);  // wraps soon
    REQUIRE(journal);
    std::mt19937 random(1);
    std::string expected;
    for (int i = 0; i < 2000; ++i) {
        const std::string piece(1 + random() % 1500, static_cast<char>('a' + i % 26));
        Progress next = journal->progress();
        const std::size_t dropped = journal->push(next, bytes(piece));
        journal->commit(next);
        expected += piece;
        CHECK(dropped == (expected.size() > capacity ? expected.size() - capacity : 0));
        expected.erase(0, dropped);
        REQUIRE(journal->waiting() == expected.size());
        const auto taken = journal->take(random() % 1400);
        const std::size_t refused = taken.empty() ? 0 : random() % taken.size();
        CHECK(expected.starts_with(text_of(taken)));
        journal->put_back(refused);
        expected.erase(0, taken.size() - refused);
    }
    CHECK(take_all(*journal) == expected);
}

TEST_CASE("a successor finds what was committed, and nothing of what was not") {
    std::vector<std::byte> memory(Journal::bytes(capacity));
    auto journal = Journal::start(memory, capacity, {}, 7);
    Progress next = journal->progress();
    journal->push(next, bytes("committed"));
    next.consumed = 9;
    journal->commit(next);
    journal->push(next, bytes(" and not"));
    next.consumed = 17;

    auto successor = Journal::resume(memory, capacity);
    REQUIRE(successor);
    CHECK(successor->progress().consumed == 9);
    CHECK(successor->produced() == 7);
    CHECK(take_all(*successor) == "committed");
}

TEST_CASE("a journal that cannot be is refused") {
    std::vector<std::byte> memory(Journal::bytes(capacity));
    const auto spoil = [&](std::size_t word, std::uint32_t value) {
        REQUIRE(Journal::start(memory, capacity, {}, 0));
        std::memcpy(memory.data() + 4 * word, &value, sizeof value);
        return Journal::resume(memory, capacity).has_value();
    };
    CHECK_FALSE(spoil(0, 1));           // magic
    CHECK_FALSE(spoil(1, 8192));        // capacity
    CHECK_FALSE(spoil(2, 2));           // which Progress
    CHECK_FALSE(spoil(3, 1));           // queue_begin behind queue_end
    CHECK_FALSE(spoil(9, 0xFF000000));  // how far into a character
    CHECK_FALSE(spoil(10, 0x29));       // flags
    CHECK(spoil(4, 0xFFFFFFFF));        // an index is an index
    CHECK_FALSE(Journal::resume(std::span(memory).first(100), capacity));
    CHECK_FALSE(Journal::start(std::span(memory).first(100), capacity, {}, 0));
}

TEST_CASE("random bytes in a journal break nothing") {
    std::vector<std::byte> memory(Journal::bytes(capacity));
    std::mt19937 random(2);
    unsigned accepted = 0;
    for (int round = 0; round < 20'000; ++round) {
        REQUIRE(Journal::start(memory, capacity, {}, 0));
        for (unsigned i = 0, changes = random() % 4; i <= changes; ++i)
            memory[4 + random() % 76] = static_cast<std::byte>(random());
        auto journal = Journal::resume(memory, capacity);
        if (!journal) continue;
        ++accepted;
        REQUIRE(journal->waiting() <= capacity);
        Progress next = journal->progress();
        journal->push(next, bytes("x"));
        journal->commit(next);
        REQUIRE(take_all(*journal).size() <= capacity);
    }
    CHECK(accepted > 0);
}

}  // namespace caisson::console
