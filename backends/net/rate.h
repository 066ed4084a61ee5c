// A token bucket in the units of libxl's "rate" key: so many bytes in so many microseconds.
//
// What is taken may exceed what is left (one batch is sent as a whole); the debt is paid before the next batch, so the
// long-term rate is exact. Time is given by the caller.
#pragma once

#include <algorithm>
#include <chrono>

#include "backends/net/config.h"

namespace caisson::net::backend {

class TokenBucket {
  public:
    using Clock = std::chrono::steady_clock;

    explicit TokenBucket(Rate rate = {}) : rate_(rate) { left_ = burst(); }

    bool limited() const { return rate_.bytes != 0 && rate_.microseconds != 0; }
    void take(std::uint64_t bytes) {
        if (limited()) left_ -= static_cast<double>(bytes);
    }
    // True when something may be sent now.
    bool ready(Clock::time_point now) {
        if (!limited()) return true;
        if (left_ <= 0) refill(now);
        return left_ > 0;
    }
    // How long until ready(), after it said no.
    Clock::duration wait() const {
        const double microseconds =
            (1 - left_) * static_cast<double>(rate_.microseconds) / static_cast<double>(rate_.bytes);
        return std::chrono::microseconds(static_cast<std::int64_t>(std::clamp(microseconds, 1.0, 1e6)));
    }

  private:
    // A full packet must always fit: netback's max_burst.
    double burst() const { return static_cast<double>(std::max<std::uint64_t>(rate_.bytes, 131072)); }
    void refill(Clock::time_point now) {
        if (last_ == Clock::time_point{}) last_ = now - std::chrono::microseconds(1);
        const double passed = std::chrono::duration<double, std::micro>(now - last_).count();
        last_ = now;
        left_ = std::min(burst(),
                         left_ + passed * static_cast<double>(rate_.bytes) / static_cast<double>(rate_.microseconds));
    }

    Rate rate_;
    double left_ = 0;
    Clock::time_point last_{};
};

}  // namespace caisson::net::backend
