// Another domain of real Xen, for a case that runs in this one: an agent there (agent/agent.cpp) makes the port's
// calls.
//
// Requests and answers are lines of text, and go over far_line.h: a few milliseconds each under emulation.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/conformance/far_line.h"

namespace caisson::conformance {

using Words = std::vector<std::string>;
// In one call: two digits are a byte. A page, and a message of xenstore (xs_wire.h).
inline constexpr std::size_t most_bytes = 4096 + 16;
static_assert(2 * most_bytes + 100 < most_text);

Words split(std::string_view text);
std::string to_hex(std::string_view bytes);
std::string from_hex(std::string_view hex);

class FarDomain {
  public:
    // The agent is up.
    explicit FarDomain(DomainId id);
    // It forgets all that earlier cases made there.
    void reset() { need("reset"); }

    DomainId id() const { return id_; }
    // "map 3 rw 17 18" and its answer, or the error that the call had there. Any thread.
    Result<Words> call(const std::string& request);
    // The same where an error is the end of the test.
    Words need(const std::string& request);
    // The domain was destroyed: nothing is asked of it any more, and nothing of it stays mapped here.
    void bury();

  private:
    DomainId id_;
    std::optional<FarLine> line_;
    std::mutex one_at_a_time_;
    std::atomic<bool> dead_{false};
};

}  // namespace caisson::conformance
