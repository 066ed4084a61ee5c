// The judge of the restart tests: it must see what is doubled, and not call a loss a doubling.
#include "tests/support/console_streams.h"

#include <catch2/catch.hpp>
#include <random>

namespace caisson::test {

TEST_CASE("the judge counts what was lost, wherever it was cut") {
    const std::string sent = words(0, 2000);
    std::mt19937 random(1);
    for (int round = 0; round < 200; ++round) {
        const std::size_t at = random() % (sent.size() - 2000), length = random() % 1500;
        const Difference found = difference(sent, std::string(sent).erase(at, length));
        CHECK(found.lost == length);
        CHECK(found.doubled == 0);
    }
    CHECK(difference(sent, sent.substr(0, 100)).lost == sent.size() - 100);
}

TEST_CASE("the judge sees every doubled piece") {
    const std::string sent = words(0, 2000);
    std::mt19937 random(2);
    for (int round = 0; round < 200; ++round) {
        const std::size_t at = random() % (sent.size() - 2000), length = 1 + random() % 1500;
        const Difference found = difference(sent, std::string(sent).insert(at + length, sent.substr(at, length)));
        CHECK(found.doubled + found.foreign > 0);
    }
}

}  // namespace caisson::test
