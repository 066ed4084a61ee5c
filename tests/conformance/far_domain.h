// Another domain of real Xen, for a case that runs in this one: an agent there (agent/agent.cpp) makes the port's
// calls.
//
// Requests and answers are lines of text in two nodes of the agent's own part of xenstore: slow (10 to 20 ms each under
// emulation), and independent of everything that the cases are about.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "ring/store.h"

namespace caisson::conformance {

using Words = std::vector<std::string>;
// xenstored refuses a node of more than 2048 bytes, and two digits are a byte.
inline constexpr std::size_t most_bytes = 900;

Words split(std::string_view text);
std::string to_hex(std::string_view bytes);
std::string from_hex(std::string_view hex);

class FarDomain {
  public:
    // The agent is up, and forgets all that earlier cases made there.
    explicit FarDomain(DomainId id);

    DomainId id() const { return id_; }
    // "map 3 rw 17 18" and its answer, or the error that the call had there. Any thread.
    Result<Words> call(const std::string& request);
    // The same where an error is the end of the test.
    Words need(const std::string& request);
    // The domain was destroyed: nothing is asked of it any more.
    void bury() { dead_ = true; }

    std::string node(std::string_view name) const;

  private:
    DomainId id_;
    Store store_;
    std::mutex one_at_a_time_;
    std::string serial_;
    unsigned count_ = 0;
    std::atomic<bool> dead_{false};
};

}  // namespace caisson::conformance
