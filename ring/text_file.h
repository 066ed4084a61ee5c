// A file as it is now, whole: for the small ones of /proc, of an image, of our own. An error that comes while it is
// read (a process that has gone) is the answer; nothing throws.
#pragma once

#include <array>
#include <string>

#include "ring/fd.h"

namespace caisson {

inline Result<std::string> read_text(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return host_fault(errno, "open", path);
    std::string text;
    std::array<char, 4096> part;
    ssize_t got;
    while ((got = ::read(file.get(), part.data(), part.size())) > 0)
        text.append(part.data(), static_cast<std::size_t>(got));
    if (got < 0) return host_fault(errno, "read", path);
    return text;
}

}  // namespace caisson
