// A token bucket in the units of libxl's "rate" key: so many bytes (or other things) in so many microseconds.
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

    // A full packet must always fit: netback's max_burst.
    static constexpr std::uint64_t least_burst_bytes = 131072;

    explicit TokenBucket(Rate rate = {}, std::uint64_t least_burst = least_burst_bytes)
        : rate_(rate), burst_(static_cast<double>(std::max(rate.bytes, least_burst))), left_(burst_) {}

    bool limited() const { return rate_.bytes != 0 && rate_.microseconds != 0; }
    void take(std::uint64_t bytes) {
        if (limited()) left_ -= static_cast<double>(bytes);
    }
    // Nothing is left, unless time has brought more: ask ready(). Needs no clock, which can be a call to Xen.
    bool empty() const { return limited() && left_ <= 0; }
    // True when something may be sent now.
    bool ready(Clock::time_point now) {
        if (empty()) refill(now);
        return !empty();
    }
    // How long until ready(), after it said no.
    Clock::duration wait() const {
        if (!empty()) return {};
        const double microseconds =
            (1 - left_) * static_cast<double>(rate_.microseconds) / static_cast<double>(rate_.bytes);
        return std::chrono::microseconds(static_cast<std::int64_t>(std::clamp(microseconds, 1.0, 1e6)));
    }

  private:
    void refill(Clock::time_point now) {
        if (last_ == Clock::time_point{}) last_ = now - std::chrono::microseconds(1);
        const double passed = std::chrono::duration<double, std::micro>(now - last_).count();
        last_ = now;
        left_ = std::min(burst_,
                         left_ + passed * static_cast<double>(rate_.bytes) / static_cast<double>(rate_.microseconds));
    }

    Rate rate_;
    double burst_, left_;
    Clock::time_point last_{};
};

}  // namespace caisson::net::backend
