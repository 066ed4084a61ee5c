// A trial of the ring benchmark: two threads on two CPUs for a moment. Each contender is a pair of functions that the
// runner calls until the time is over; they share nothing but the transport under test.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

namespace bench {

inline constexpr std::uint32_t batch = 32;

// Slots of one page each: a 16-byte request and response, and netif's (12-byte request, 4-byte response).
struct Request16 {
    std::uint64_t id, argument;
};
struct Response16 {
    std::uint64_t id, result;
};
struct NetRequest {
    std::uint32_t gref;
    std::uint16_t offset, flags, id, size;
};
struct NetResponse {
    std::uint16_t id;
    std::int16_t status;
};
template <class Request>
Request make_request(std::uint32_t i) {
    if constexpr (requires(Request r) { r.gref; })
        return {.gref = i, .offset = 64, .flags = 1, .id = static_cast<std::uint16_t>(i), .size = 1500};
    else
        return {.id = i, .argument = ~std::uint64_t{i}};
}
template <class Response, class Request>
Response answer(const Request& request) {
    if constexpr (requires(Request r) { r.gref; })
        // every field is used: a copy that the compiler may leave out proves nothing
        return {.id = request.id,
                .status = static_cast<std::int16_t>(request.gref ^ request.offset ^ request.flags ^ request.size)};
    else
        return {.id = request.id, .result = request.argument ^ 1};
}

class Contender {
  public:
    virtual ~Contender() = default;
    // Run until `stop`, on their own threads. front() returns how many requests were answered.
    virtual std::uint64_t front(const std::atomic<bool>& stop) = 0;
    virtual void back(const std::atomic<bool>& stop) = 0;
};

// By name, or null: "ours_16", "ours_net", "ours_one_16" (one at a time), ...
std::unique_ptr<Contender> make_ours(std::string_view name);
std::unique_ptr<Contender> make_unchecked(std::string_view name);  // the same source with its checks compiled out
std::unique_ptr<Contender> make_xen(std::string_view name);        // libxen-dev's macros
std::unique_ptr<Contender> make_private(std::string_view name);    // rte_ring, boost::lockfree::spsc_queue

}  // namespace bench
