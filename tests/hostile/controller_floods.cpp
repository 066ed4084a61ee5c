// Peers that write more than anybody can read.
#include <catch2/catch.hpp>
#include <fstream>

#include "tests/support/hostile_controller.h"
#include "tests/support/memory.h"

using namespace caisson;
using namespace caisson::test;

namespace {

// What this process says on standard error meanwhile, line by line.
class Captured {
  public:
    Captured() : saved_(::dup(STDERR_FILENO)), file_(::memfd_create("log", 0)) { ::dup2(file_.get(), STDERR_FILENO); }
    ~Captured() { ::dup2(saved_.get(), STDERR_FILENO); }
    std::vector<std::string> lines() const {
        std::ifstream file("/proc/self/fd/" + std::to_string(file_.get()));
        std::vector<std::string> all;
        for (std::string line; std::getline(file, line);) all.push_back(line);
        return all;
    }

  private:
    Fd saved_, file_;
};

}  // namespace

TEST_CASE("xsa_349 a flood of watch events costs no memory, and the neighbour's changes still come through") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    const auto flood = [&](int writes) {
        for (int i = 0; i < writes; ++i) guest.write(i % 2 == 0 ? "state" : "unheard-of", i % 4 == 0 ? "1" : "0");
    };
    flood(500);
    REQUIRE(rig.settled());
    const auto before = resident_bytes();
    for (int round = 0; round < 10; ++round) {
        flood(500);
        REQUIRE(rig.settled());
    }
    // 5000 events of a hundred bytes each would be a multiple of it if anybody kept them.
    if (memory_means_something()) CHECK(resident_bytes() < before + (1 << 20));
    CHECK(rig.neighbour_connected());
}

TEST_CASE("xsa_043_157 a guest that provokes errors without end fills no log") {
    UnderAttack rig(Role::backend);
    REQUIRE(rig.shows(rig.b(), "2"));
    HandmadeFrontend guest(rig);
    std::vector<std::string> lines;
    {
        Captured captured;
        for (int i = 0; i < 100; ++i) {
            guest.state(1);
            guest.write("ring-ref", "\x1b]0;owned\x07\nfake line");
            guest.state(4);
            if (i % 10 == 0) rig.settled();
            guest.state(6);
        }
        rig.settled();
        lines = captured.lines();
    }
    std::size_t about_device = 0;
    for (const std::string& line : lines) {
        about_device += line.find("echo " + std::to_string(rig.front.id.raw) + "/0") != std::string::npos;
        for (const char c : line) CHECK((c >= 0x20 && c <= 0x7e));
    }
    CHECK(about_device <= 40);  // ten lines in ten seconds, however slow the machine is
    CHECK(rig.neighbour_connected());
}
