// The main of every Catch2 test program. A test that cannot run on this machine says WARN("skipped: why"); when nothing
// failed and something was skipped the program ends with 77, which ctest shows as "Skipped" and never as "Passed".
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include "tests/support/child.h"

namespace {

constexpr int skipped_exit = 77;
bool skipped = false;

struct SkipWatcher : Catch::TestEventListenerBase {
    using TestEventListenerBase::TestEventListenerBase;
    bool assertionEnded(const Catch::AssertionStats& stats) override {
        for (const auto& info : stats.infoMessages)
            if (info.type == Catch::ResultWas::Warning && info.message.starts_with("skipped:")) skipped = true;
        return true;
    }
};
CATCH_REGISTER_LISTENER(SkipWatcher)

}  // namespace

int main(int argc, char** argv) {
    if (const auto& own = caisson::test::children(); argc > 1 && own.contains(argv[1]))
        return own.at(argv[1])(argc, argv);
    const int failed = Catch::Session().run(argc, argv);
    return failed == 0 && skipped ? skipped_exit : failed;
}
