// A test program that is also the program it starts: `test_unit worker` is the worker of a test's own catalogue.
#pragma once

#include <map>
#include <string>

namespace caisson::test {

using ChildMain = int (*)(int argc, char** argv);

inline std::map<std::string, ChildMain>& children() {
    static std::map<std::string, ChildMain> all;
    return all;
}
inline bool add_child(const std::string& name, ChildMain run) { return children()[name] = run; }

}  // namespace caisson::test
