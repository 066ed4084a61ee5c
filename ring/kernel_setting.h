// A setting that the kernel offers as a file, in /proc, /sys or a cgroup: with one write, or not at all.
#pragma once

#include <string_view>

#include "ring/fd.h"

namespace caisson {

inline Status write_setting(const std::string& path, std::string_view value) {
    const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
        return host_fault(errno, "write", path);
    return {};
}

}  // namespace caisson
