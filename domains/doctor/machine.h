// What of a machine the doctor looks at. Nothing is changed and nothing is loaded; a test gives it another root.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace caisson::doctor {

struct Machine {
    std::string root;     // before every path below; empty: this machine
    std::string release;  // of the kernel, as uname(2) says it
    unsigned user = 0;    // effective id

    // What no file tells: 0, or the errno with which the kernel refuses.
    std::function<int()> io_uring, namespaces, landlock;

    bool has(const std::string& path) const;
    // Readable and writable by us.
    bool usable(const std::string& path) const;
    // The first line, without its end; empty where there is none.
    std::string line(const std::string& path) const;
    std::vector<std::string> entries(const std::string& folder) const;
    // Of $PATH's usual folders.
    bool program(const std::string& name) const;

    enum class Module { there, loadable, lacking };  // `there`: loaded, or part of the kernel
    // Names as modprobe takes them; '-' and '_' are one.
    Module module(const std::string& name) const;
};

Machine this_machine();

}  // namespace caisson::doctor
