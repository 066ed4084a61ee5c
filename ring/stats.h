// Counters and latency histograms of a device in a page that others may look at: `caisson top` maps it read-only.
//
// Written by one thread with relaxed stores (no read-modify-write on a shared line, no lock); a reader sees each
// counter whole, not all of them at one instant. A reader trusts nothing in the page but its size: labels are escaped,
// the layout is fixed.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace caisson {

inline constexpr std::uint32_t stats_magic = 0x43414953;  // "CAIS"
inline constexpr std::size_t stats_max_queues = 8;

// One counter: only its owner writes.
class Counter {
  public:
    void add(std::uint64_t n) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
    std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

// Bucket i counts latencies in [2^i, 2^(i+1)) nanoseconds; the last one takes the rest.
class Histogram {
  public:
    void record(std::chrono::nanoseconds latency) {
        const auto ns = static_cast<std::uint64_t>(latency.count() < 1 ? 1 : latency.count());
        buckets_[std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(ns)) - 1, buckets_.size() - 1)].add(1);
    }
    std::uint64_t bucket(std::size_t i) const { return buckets_[i].get(); }
    static constexpr std::size_t size() { return 32; }

  private:
    std::array<Counter, 32> buckets_;
};

struct QueueStats {
    Counter requests, responses, bytes_in, bytes_out;  // in: from the frontend's domain; out: towards it
    Counter dropped, errors, notifies_sent, notifies_received, sleeps;
    Histogram latency;  // request taken to response published
};

// One page file a device; workers write, the controller names it.
struct DeviceStats {
    std::uint32_t magic = stats_magic;
    std::uint32_t size = 0;                   // sizeof(DeviceStats): the version
    std::uint16_t frontend = 0, backend = 0;  // domain ids
    std::uint32_t device = 0;
    std::uint32_t queues = 0;
    std::uint32_t role = 0;               // 0 frontend, 1 backend
    std::array<char, 16> device_class{};  // NUL-padded
    Counter restarts;                     // workers that died and were replaced: written by the controller
    Counter broken;                       // protocol violations by the peer
    std::array<QueueStats, stats_max_queues> queue{};

    void set_class(std::string_view name) {
        device_class.fill('\0');
        std::memcpy(device_class.data(), name.data(), std::min(name.size(), device_class.size() - 1));
    }
    // Whatever its writer put there.
    std::string_view class_name() const {
        const std::string_view whole(device_class.data(), device_class.size());
        return whole.substr(0, whole.find('\0'));
    }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace caisson
