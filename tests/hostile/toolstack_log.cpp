// The log of a domain: a guest that never stops talking does not fill the disk.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "domains/toolstack/keeper.h"
#include "tests/support/temporary.h"

using namespace caisson;
using namespace caisson::toolstack;

TEST_CASE("xsa_180_a_log_and_the_one_before_it_stay_within_their_limit") {
    constexpr std::uint64_t limit = 64 << 10;
    const test::TemporaryFolder folder;
    const std::string path = folder / "guest.log";
    {
        auto log = BoundedLog::open(path, limit);
        REQUIRE(log);
        for (int i = 0; i < 2000; ++i) log->append(std::string(4999, 'x') + "\n");
        log->append(std::string(10 * limit, 'y'));
        log->append("the end\n");
    }
    {
        auto log = BoundedLog::open(path, limit);  // the next life goes on in the same file, and counts it
        REQUIRE(log);
        log->append(std::string(limit - 4, 'z'));
    }
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
        ++files;
        CHECK(entry.file_size() <= limit);
    }
    CHECK(files == 2);
    std::ifstream before(path + ".1");
    const std::string text{std::istreambuf_iterator<char>(before), {}};
    CHECK(text == "the end\n");
}

TEST_CASE("A log that somebody made a link is not written through it") {
    const test::TemporaryFolder folder;
    std::ofstream(folder / "victim") << "precious";
    std::filesystem::create_symlink("victim", folder / "guest.log");
    CHECK_FALSE(BoundedLog::open(folder / "guest.log", 4096));
    CHECK(std::filesystem::file_size(folder / "victim") == 8);
}
