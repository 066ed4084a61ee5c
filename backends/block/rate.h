// Token buckets: requests and bytes a second, with a burst. Time is given by the caller.
//
// Requests are counted before they are taken, so their rate is kept exactly. The bytes of a request are known only when
// it was taken: the debt is paid before the next one, so the long-term rate is exact, too.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "backends/block/config.h"

namespace caisson::block::backend {

class TokenBucket {
  public:
    using Clock = std::chrono::steady_clock;

    TokenBucket() = default;
    // Without a burst: a tenth of a second's worth, and at least one.
    TokenBucket(std::uint64_t per_second, std::uint64_t burst)
        : rate_(static_cast<double>(per_second)),
          burst_(burst != 0 ? static_cast<double>(burst) : std::max(1.0, rate_ / 10)),
          left_(burst_) {}

    bool limited() const { return rate_ > 0; }
    void take(std::uint64_t count) {
        if (limited()) left_ -= static_cast<double>(count);
    }
    // How many whole tokens there are now; 0 in debt.
    std::uint64_t left(Clock::time_point now) {
        if (last_ != Clock::time_point{})
            left_ = std::min(burst_, left_ + rate_ * std::chrono::duration<double>(now - last_).count());
        last_ = now;
        return left_ >= 1 ? static_cast<std::uint64_t>(left_) : 0;
    }
    // How long until left() is not 0, after it was.
    Clock::duration wait() const {
        return std::chrono::microseconds(static_cast<std::int64_t>(std::clamp((1 - left_) / rate_ * 1e6, 1.0, 1e6)));
    }

  private:
    double rate_ = 0, burst_ = 0, left_ = 0;
    Clock::time_point last_{};
};

// Both limits of one disk, all its queues together.
class Throttle {
  public:
    using Clock = TokenBucket::Clock;

    explicit Throttle(const RateLimit& limit)
        : requests_(limit.requests_per_second, limit.requests_burst),
          bytes_(limit.bytes_per_second, limit.bytes_burst) {}

    bool limited() const { return requests_.limited() || bytes_.limited(); }
    // How many requests may be taken now, at most `wanted`.
    std::uint32_t allowance(std::uint32_t wanted, Clock::time_point now) {
        wait_ = {};
        std::uint64_t allowed = wanted;
        if (requests_.limited()) {
            allowed = std::min(allowed, requests_.left(now));
            if (allowed == 0) wait_ = requests_.wait();
        }
        if (bytes_.limited()) {
            if (bytes_.left(now) == 0)
                allowed = 0, wait_ = std::max(wait_, bytes_.wait());
            else
                allowed = std::min<std::uint64_t>(allowed, 1);  // or a batch would be a debt of many requests
        }
        return static_cast<std::uint32_t>(allowed);
    }
    void took_requests(std::uint32_t count) { requests_.take(count); }
    void took_bytes(std::uint64_t count) { bytes_.take(count); }
    // After an allowance of 0.
    Clock::duration wait() const { return wait_; }

  private:
    TokenBucket requests_, bytes_;
    Clock::duration wait_{};
};

}  // namespace caisson::block::backend
