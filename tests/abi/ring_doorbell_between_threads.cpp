// Two threads that really sleep: whoever finds nothing to do arms its doorbell, looks again, and waits for the bell. A
// lost wake-up is a test that never ends (the time limit of ctest makes it an error). What may happen in theory is in
// tests/models/; this is the real code on this machine's memory.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/abi/ring_halves.h"

namespace caisson::abi {
namespace {

// An event channel: a latch that waking up clears.
class Bell {
  public:
    void ring() {
        {
            std::lock_guard hold(mutex_);
            pending_ = true;
        }
        rung_.notify_one();
    }
    void wait() {
        std::unique_lock hold(mutex_);
        rung_.wait(hold, [&] { return pending_; });
        pending_ = false;
    }

  private:
    std::mutex mutex_;
    std::condition_variable rung_;
    bool pending_ = false;
};

constexpr std::uint32_t items = 20000;

template <class FrontHalf, class BackHalf>
void all_items_make_the_round() {
    const RING_IDX first = 0u - items / 2;  // wraps half-way
    Page page(first);
    Bell request_bell, response_bell;

    std::thread backend([&] {
        BackHalf back(page, first);
        std::vector<std::uint32_t> taken;
        std::uint32_t answered = 0;
        while (answered < items) {
            taken.clear();
            back.take(taken, 16);
            for (std::uint32_t id : taken) back.push(id);
            answered += static_cast<std::uint32_t>(taken.size());
            if (back.publish()) response_bell.ring();
            if (taken.empty() && !back.work_after_arming()) request_bell.wait();
        }
    });

    FrontHalf front(page, first);
    std::vector<std::uint32_t> answers;
    std::uint32_t sent = 0;
    while (answers.size() < items) {
        const std::size_t before = answers.size();
        front.take(answers);
        const bool room = sent < items && front.free() > 0;
        while (sent < items && front.free() > 0) front.push(sent++);
        if (front.publish()) request_bell.ring();
        if (before == answers.size() && !room && !front.work_after_arming()) response_bell.wait();
    }
    backend.join();

    for (std::uint32_t i = 0; i < items; ++i)
        if (answers[i] != i) FAIL("answer " << i << " is " << answers[i]);
    CHECK(answers.size() == items);
}

}  // namespace

TEST_CASE("no wake-up is lost between two sleeping threads") { all_items_make_the_round<OurFront, OurBack>(); }

#if !defined(__SANITIZE_THREAD__)  // Xen's macros use plain loads and stores, which the sanitizer rightly reports
TEST_CASE("no wake-up is lost between our frontend and Xen's macros") { all_items_make_the_round<OurFront, XenBack>(); }
TEST_CASE("no wake-up is lost between Xen's macros and our backend") { all_items_make_the_round<XenFront, OurBack>(); }
#endif

}  // namespace caisson::abi
