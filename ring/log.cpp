#include "ring/log.h"

#include <fmt/core.h>
#include <unistd.h>

namespace caisson {

namespace {
constexpr unsigned lines_per_window = 10;
constexpr auto window_length = std::chrono::seconds(10);
}  // namespace

std::string escaped(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7F && c != '\\')
            out += c;
        else
            out += fmt::format("\\x{:02x}", byte);
    }
    return out;
}

void Log::say(std::string_view text) const {
    const std::string line = fmt::format("caisson: {}: {}\n", device_, escaped(text));
    (void)!::write(STDERR_FILENO, line.data(), line.size());  // one write: lines of several processes do not mix
}

bool Log::allowed() {
    const auto now = std::chrono::steady_clock::now();
    if (now - window_ >= window_length) {
        if (suppressed_ > 0) say(fmt::format("{} more lines like the last ones were left out", suppressed_));
        window_ = now, in_window_ = 0, suppressed_ = 0;
    }
    if (in_window_ < lines_per_window) return ++in_window_, true;
    ++suppressed_, ++suppressed_total_;
    return false;
}

void Log::peer(std::string_view text) {
    if (allowed()) say(text);
}

}  // namespace caisson
