// How much memory this process has.
#pragma once

#include <catch2/catch.hpp>
#include <cstddef>
#include <fstream>

#include "domains/sandbox/sandbox.h"
#include "protocols/words.h"

namespace caisson::test {

inline std::size_t resident_bytes() {
    std::size_t total = 0, resident = 0;  // pages
    std::ifstream("/proc/self/statm") >> total >> resident;
    return resident * page_size;
}

// A sanitizer keeps what was freed: what a test measured says nothing then.
inline bool memory_means_something() {
    if (sanitized) WARN("skipped: how much memory is used, for a sanitizer's run-time keeps what was freed");
    return !sanitized;
}

}  // namespace caisson::test
