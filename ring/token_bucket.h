// A token bucket: so many tokens (bytes, requests) a second, and a burst that idle time saves up.
//
// What is taken may exceed what is left, for what is done at once is not always known before; the debt is paid before
// anything more, so the long-term rate is exact. Time is given by the caller.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace caisson {

class TokenBucket {
  public:
    using Clock = std::chrono::steady_clock;

    TokenBucket() = default;  // without a limit
    TokenBucket(double per_second, double burst) : rate_(per_second), burst_(std::max(1.0, burst)), left_(burst_) {}

    bool limited() const { return rate_ > 0; }
    void take(std::uint64_t count) {
        if (limited()) left_ -= static_cast<double>(count);
    }
    // Not a whole token is left, unless time has brought more: ask ready(). Needs no clock, which can be a call to Xen.
    bool empty() const { return limited() && left_ < 1; }
    // Whether there is a whole token now; the clock is looked at only where there was none.
    bool ready(Clock::time_point now) { return !empty() || left(now) > 0; }
    // How many whole tokens there are now; 0 in debt. Of a limited one.
    std::uint64_t left(Clock::time_point now) {
        if (last_ != Clock::time_point{})
            left_ = std::min(burst_, left_ + rate_ * std::chrono::duration<double>(now - last_).count());
        last_ = now;
        return left_ >= 1 ? static_cast<std::uint64_t>(left_) : 0;
    }
    // How long until ready(), after it said no: at most a second, after which it is asked again.
    Clock::duration wait() const {
        if (!empty()) return {};
        return std::chrono::microseconds(static_cast<std::int64_t>(std::clamp((1 - left_) / rate_ * 1e6, 1.0, 1e6)));
    }

  private:
    double rate_ = 0, burst_ = 0, left_ = 0;
    Clock::time_point last_{};
};

}  // namespace caisson
