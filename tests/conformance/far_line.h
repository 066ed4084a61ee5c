// Requests to another domain of real Xen, and its answers: text in pages that the other domain shares, and an event for
// each. One end calls, the other one serves; both are trusted.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "ring/hypervisor.h"
#include "ring/store.h"

namespace caisson::conformance {

// Of a request or an answer.
inline constexpr std::size_t most_text = 3 * page_size;

class FarLine {
  public:
    // In the domain that serves: shares the pages and says in its data/agent/line where they are.
    static Result<FarLine> offer(Store& store, DomainId client);
    // In the domain that calls.
    static Result<FarLine> take(Store& store, DomainId server);

    // One request and its answer; an error when none comes until then, or when `stop` is set.
    Result<std::string> call(std::string_view request, std::chrono::seconds patience, const std::atomic<bool>& stop);

    // Waits for the next request.
    std::string next();
    void answer(std::string_view text);

  private:
    // A direction: a number that changes with each text, its length, the text.
    static constexpr std::size_t direction_pages = 4;

    explicit FarLine(std::unique_ptr<Hypervisor> xen) : xen_(std::move(xen)) {}
    void put(std::size_t direction, std::uint32_t number, std::string_view text);
    std::uint32_t word(std::size_t offset) const;
    std::string text(std::size_t direction) const;
    void wait();

    std::unique_ptr<Hypervisor> xen_;  // first: it outlives what was made in it
    SharedPages shared_;
    MappedPages mapped_;
    SharedSpan memory_;
    EventChannel channel_;
    std::uint32_t number_ = 0;
};

}  // namespace caisson::conformance
