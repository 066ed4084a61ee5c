// Our ring, as a device uses it while it is busy: take a batch, answer it, publish once, never arm.
//
// Compiled twice: ring_unchecked.cpp includes this file with the checks of ring/shared_ring.h compiled out.
#include <array>

#include "ring/shared_ring.h"
#include "tests/bench/trial.h"

#ifndef BENCH_MAKE
#define BENCH_MAKE make_ours
#define BENCH_PREFIX "ours_"
#endif

namespace {
using namespace caisson;

struct Layout16 {
    using Request = bench::Request16;
    using Response = bench::Response16;
};
struct LayoutNet {
    using Request = bench::NetRequest;
    using Response = bench::NetResponse;
};
template <class T>
struct Checked {
    T value;
};

template <class P, std::uint32_t Batch, std::size_t Bytes>
class Ours final : public bench::Contender {
  public:
    std::uint64_t front(const std::atomic<bool>& stop) override {
        std::uint64_t answered = 0;
        std::uint32_t next = 0;
        std::uint64_t sum = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            for (std::uint32_t room = std::min(Batch == 1 ? 1 - front_.outstanding() : front_.free(), Batch); room > 0;
                 --room)
                front_.push(bench::make_request<typename P::Request>(next++));
            if (front_.publish()) ++notifies_;
            const auto taken = front_.drain(Batch, [&](Untrusted<typename P::Response>&& response, std::uint32_t) {
                sum += std::move(response).check([](const auto& r) { return Checked<decltype(r.id + 0)>{r.id}; }).value;
            });
            if (taken) answered += *taken;
        }
        sink_ = sum;
        return answered;
    }
    void back(const std::atomic<bool>& stop) override {
        while (!stop.load(std::memory_order_relaxed)) {
            const auto taken = back_.drain(Batch, [&](Untrusted<typename P::Request>&& request, std::uint32_t) {
                back_.push(std::move(request)
                               .check([](const auto& r) {
                                   return Checked<typename P::Response>{bench::answer<typename P::Response>(r)};
                               })
                               .value);
            });
            if (taken && *taken > 0 && back_.publish()) ++notifies_back_;
        }
    }

  private:
    alignas(4096) std::array<std::byte, Bytes> memory_{};
    SharedSpan shared_ = detail::SharedAccess::span(memory_.data(), memory_.size());
    alignas(128) RingIndices front_indices_;
    FrontRing<P> front_ = FrontRing<P>::initialise(shared_, front_indices_);
    std::uint64_t notifies_ = 0;
    volatile std::uint64_t sink_ = 0;
    alignas(128) RingIndices back_indices_;
    BackRing<P> back_{shared_, back_indices_};
    std::uint64_t notifies_back_ = 0;
};

}  // namespace

std::unique_ptr<bench::Contender> bench::BENCH_MAKE(std::string_view name) {
    if (name == BENCH_PREFIX "16") return std::make_unique<Ours<Layout16, batch, 4096>>();
    if (name == BENCH_PREFIX "net") return std::make_unique<Ours<LayoutNet, batch, 4096>>();
    if (name == BENCH_PREFIX "big_16") return std::make_unique<Ours<Layout16, batch, 5 * 4096>>();
    if (name == BENCH_PREFIX "one_16") return std::make_unique<Ours<Layout16, 1, 4096>>();
    return nullptr;
}
