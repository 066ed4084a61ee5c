// Both limits of one disk, all its queues together: requests and bytes a second, with a burst. Time is given by the
// caller.
//
// Requests are counted before they are taken, so their rate is kept exactly. The bytes of a request are known only when
// it was taken: a debt, which is paid before the next one.
#pragma once

#include "backends/block/config.h"
#include "ring/token_bucket.h"

namespace caisson::block::backend {

class Throttle {
  public:
    using Clock = TokenBucket::Clock;

    explicit Throttle(const RateLimit& limit)
        : requests_(bucket(limit.requests_per_second, limit.requests_burst)),
          bytes_(bucket(limit.bytes_per_second, limit.bytes_burst)) {}

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
    // Without a burst: a tenth of a second's worth.
    static TokenBucket bucket(std::uint64_t per_second, std::uint64_t burst) {
        const auto rate = static_cast<double>(per_second);
        return {rate, burst != 0 ? static_cast<double>(burst) : rate / 10};
    }

    TokenBucket requests_, bytes_;
    Clock::duration wait_{};
};

}  // namespace caisson::block::backend
