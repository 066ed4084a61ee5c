// Private rings: one side writes, the other reads, nobody is hostile and nobody sleeps. To do the work of a shared ring
// (requests there, responses back) each contender is a pair of them, of as many 16-byte slots as the shared ring has.
#include "tests/bench/trial.h"

#include <array>
#include <cstdlib>

#ifdef HAVE_BOOST
#include <boost/lockfree/spsc_queue.hpp>
#endif
#ifdef HAVE_RTE_RING
#include <rte_ring.h>
#include <rte_ring_elem.h>
#endif

namespace {

constexpr std::uint32_t slots = 1024;
using bench::Request16;
using bench::Response16;

// Queue: unsigned push(const T*, unsigned), unsigned pop(T*, unsigned).
template <template <class> class Queue>
class Pair final : public bench::Contender {
  public:
    std::uint64_t front(const std::atomic<bool>& stop) override {
        std::array<Request16, bench::batch> out;
        std::array<Response16, bench::batch> in;
        std::uint64_t answered = 0, sum = 0;
        std::uint32_t next = 0;
        while (!stop.load(std::memory_order_relaxed)) {
            if (next - answered <= slots - bench::batch) {
                for (std::uint32_t i = 0; i < bench::batch; ++i) out[i] = bench::make_request<Request16>(next + i);
                next += requests_.push(out.data(), bench::batch);
            }
            const unsigned taken = responses_.pop(in.data(), bench::batch);
            for (unsigned i = 0; i < taken; ++i) sum += in[i].id;
            answered += taken;
        }
        sink_ = sum;
        return answered;
    }
    void back(const std::atomic<bool>& stop) override {
        std::array<Request16, bench::batch> in;
        std::array<Response16, bench::batch> out;
        while (!stop.load(std::memory_order_relaxed)) {
            const unsigned taken = requests_.pop(in.data(), bench::batch);
            for (unsigned i = 0; i < taken; ++i) out[i] = bench::answer<Response16>(in[i]);
            for (unsigned done = 0; done < taken && !stop.load(std::memory_order_relaxed);)
                done += responses_.push(out.data() + done, taken - done);
        }
    }

  private:
    alignas(128) Queue<Request16> requests_;
    alignas(128) Queue<Response16> responses_;
    volatile std::uint64_t sink_ = 0;
};

#ifdef HAVE_BOOST
template <class T>
class Boost {
  public:
    unsigned push(const T* items, unsigned count) { return static_cast<unsigned>(queue_.push(items, count)); }
    unsigned pop(T* items, unsigned count) { return static_cast<unsigned>(queue_.pop(items, count)); }

  private:
    boost::lockfree::spsc_queue<T, boost::lockfree::capacity<slots>> queue_;
};
#endif
#ifdef HAVE_RTE_RING
template <class T>
class Rte {
  public:
    Rte() {
        const auto size = static_cast<std::size_t>(rte_ring_get_memsize_elem(sizeof(T), slots));
        ring_ = static_cast<rte_ring*>(std::aligned_alloc(128, (size + 127) / 128 * 128));
        rte_ring_init(ring_, "trial", slots, RING_F_SP_ENQ | RING_F_SC_DEQ);
    }
    Rte(const Rte&) = delete;
    Rte& operator=(const Rte&) = delete;
    ~Rte() { std::free(ring_); }
    unsigned push(const T* items, unsigned count) {
        return rte_ring_sp_enqueue_burst_elem(ring_, items, sizeof(T), count, nullptr);
    }
    unsigned pop(T* items, unsigned count) {
        return rte_ring_sc_dequeue_burst_elem(ring_, items, sizeof(T), count, nullptr);
    }

  private:
    rte_ring* ring_;
};
#endif

}  // namespace

std::unique_ptr<bench::Contender> bench::make_private([[maybe_unused]] std::string_view name) {
#ifdef HAVE_BOOST
    if (name == "boost_16") return std::make_unique<Pair<Boost>>();
#endif
#ifdef HAVE_RTE_RING
    if (name == "rte_16") return std::make_unique<Pair<Rte>>();
#endif
    return nullptr;
}
