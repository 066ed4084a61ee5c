// Log lines, rate-limited where a peer could drive them: a guest must not be able to fill our disk (XSA-43, XSA-157).
//
// A line goes to standard error as "caisson: <device>: <text>", with every byte of peer-made text that is not printable
// ASCII escaped. Threads: any.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "protocols/words.h"

namespace caisson {

// Something that names itself in the log: "vif 3/0 backend".
class Log {
  public:
    explicit Log(std::string device) : device_(std::move(device)) {}

    // Ours to say at any rate: start-up, operator's actions.
    void say(std::string_view text) const;
    // Anything that a peer can cause: at most 10 lines in any 10 s, then one line that counts what was left out.
    void peer(std::string_view text);
    void peer(const Error& error) {
        if (allowed()) say(error.message());
    }
    std::uint64_t suppressed() const { return suppressed_total_; }

  private:
    bool allowed();
    std::string device_;
    std::chrono::steady_clock::time_point window_{};
    unsigned in_window_ = 0;
    std::uint64_t suppressed_ = 0, suppressed_total_ = 0;
};

// Printable ASCII as it is, everything else as \xNN: for names and text that others made.
std::string escaped(std::string_view text);

}  // namespace caisson
