// The io_uring of one loop: what waits for submission, what came back, and who asked. For ring/loop.cpp only.
#pragma once

#include <liburing.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "ring/loop.h"

namespace caisson::detail {

class KernelQueue {
  public:
    KernelQueue() = default;
    KernelQueue(const KernelQueue&) = delete;
    ~KernelQueue() {
        if (made_) io_uring_queue_exit(&ring_);
    }

    // Disabled, so that restrictions can come first; registering them or the first turn enables it. -errno, or 0.
    int make(unsigned entries) {
        io_uring_params parameters{};
        parameters.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED;
        const int error = io_uring_queue_init_params(entries, &ring_, &parameters);
        made_ = error >= 0;
        return error;
    }
    int restrict_to(std::span<const std::uint8_t> operations) {
        std::vector<io_uring_restriction> allowed;
        for (const std::uint8_t operation : operations)
            allowed.push_back({.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = operation, .resv = 0, .resv2 = {}});
        return io_uring_register(static_cast<unsigned>(ring_.ring_fd), IORING_REGISTER_RESTRICTIONS, allowed.data(),
                                 static_cast<unsigned>(allowed.size()));
    }
    void enable() {
        if ((ring_.flags & IORING_SETUP_R_DISABLED) == 0) return;
        // By opcode: Debian's liburing 2.3 exports no call of that name.
        io_uring_register(static_cast<unsigned>(ring_.ring_fd), IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
        ring_.flags &= ~static_cast<unsigned>(IORING_SETUP_R_DISABLED);
    }

    // An entry to fill.
    io_uring_sqe* entry() {
        io_uring_sqe* entry = io_uring_get_sqe(&ring_);
        if (entry == nullptr) {  // the submission queue is full: hand it over and take the next
            enable();            // more registrations before the first turn than the queue has places
            submit();
            entry = io_uring_get_sqe(&ring_);
        }
        return entry;
    }
    // One whose answer `who` hears of.
    io_uring_sqe* entry(KernelAnswers& who, std::uint32_t token) {
        io_uring_sqe* prepared = entry();
        io_uring_sqe_set_data64(prepared, ask(who, token));
        return prepared;
    }
    // The entry just taken is a watch: it can wait for the call that goes to sleep, which submits as well, so that a
    // wake-up costs one system call and not two. Requests are not kept waiting, and a loop too busy to sleep submits
    // watches every few rounds.
    void may_wait() { ++patient_; }
    bool submission_due() {
        const unsigned waiting = io_uring_sq_ready(&ring_);
        return waiting > patient_ || (waiting > 0 && ++rounds_late_ >= most_rounds_late);
    }
    void submit() {
        submitted();
        if (io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
    }
    // False: nothing came.
    bool submit_and_sleep(__kernel_timespec limit) {
        io_uring_cqe* cqe = nullptr;
        submitted();
        io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &limit, nullptr);
        return cqe != nullptr;
    }

    // Calls `complete(data, result)` for what the kernel completed, `most` at a time, but for what entry(who, token)
    // asked for: that goes there. Entries whose data is 0 are nobody's. True when there was something for somebody.
    template <class Complete>
    bool reap(unsigned most, Complete&& complete) {
        bool any = !put_aside_.empty();
        while (!put_aside_.empty()) {
            const auto [data, result] = put_aside_.front();
            put_aside_.pop_front();
            if (data != 0) deliver(data, result, complete);
        }
        io_uring_cqe* cqe = nullptr;
        if (io_uring_peek_cqe(&ring_, &cqe) != 0) return any;
        // What was there when the round began: a descriptor that stays ready completes again as soon as it is looked
        // at.
        for (unsigned left = std::min(io_uring_cq_ready(&ring_), most);
             left > 0 && io_uring_peek_cqe(&ring_, &cqe) == 0; --left) {
            const std::uint64_t data = io_uring_cqe_get_data64(cqe);
            const int result = cqe->res;
            io_uring_cqe_seen(&ring_, cqe);
            if (data == 0) continue;
            any = true;
            deliver(data, result, complete);
        }
        return any;
    }
    // Whether anything that entry(who, token) asked for is still with the kernel.
    bool has_asked() const { return asked_.size() != free_.size(); }
    // Whether there are answers that came while forget() waited for others.
    bool has_put_aside() const { return !put_aside_.empty(); }

    // The kernel shall give up what `who` asked for: each is answered, with -ECANCELED where it had not begun.
    void cancel(const KernelAnswers& who) {
        for (std::size_t i = 0; i < asked_.size(); ++i) {
            if (asked_[i].who != &who) continue;
            io_uring_sqe* giving_up = entry();
            io_uring_prep_cancel64(giving_up, asked_bit | i, 0);
            io_uring_sqe_set_data64(giving_up, 0);
        }
    }
    // Waits until nothing that `who` asked for is with the kernel.
    void forget(const KernelAnswers& who) {
        std::vector<bool> awaited(asked_.size());
        std::size_t left = 0;
        for (std::size_t i = 0; i < asked_.size(); ++i)
            if (asked_[i].who == &who) asked_[i].who = nullptr, awaited[i] = true, ++left;
        for (auto& [data, result] : put_aside_)
            if (is_awaited(data, awaited)) --left;
        enable();
        while (left > 0) {
            io_uring_cqe* cqe = nullptr;
            submitted();
            io_uring_submit_and_wait(&ring_, 1);  // interrupted: again
            while (io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe != nullptr) {
                const std::uint64_t data = io_uring_cqe_get_data64(cqe);
                put_aside_.emplace_back(data, cqe->res);
                io_uring_cqe_seen(&ring_, cqe);
                if (is_awaited(data, awaited)) --left;
            }
        }
    }

  private:
    static constexpr unsigned most_rounds_late = 4;  // so many rounds may a busy loop keep a watch from the kernel

    // A request of entry(who, token): its place in the table is what the kernel brings back, with this bit.
    static constexpr std::uint64_t asked_bit = std::uint64_t{1} << 63;
    struct Asked {
        KernelAnswers* who = nullptr;  // null: free, or forgotten
        std::uint32_t token = 0;
    };

    std::uint64_t ask(KernelAnswers& who, std::uint32_t token) {
        if (free_.empty()) {
            free_.push_back(static_cast<std::uint32_t>(asked_.size()));
            asked_.emplace_back();
        }
        const std::uint32_t place = free_.back();
        free_.pop_back();
        asked_[place] = {&who, token};
        return asked_bit | place;
    }
    template <class Complete>
    void deliver(std::uint64_t data, int result, Complete& complete) {
        if ((data & asked_bit) == 0) return complete(data, result);
        const auto place = static_cast<std::uint32_t>(data);
        const Asked one = std::exchange(asked_[place], {});
        free_.push_back(place);
        if (one.who != nullptr) one.who->answered(one.token, result);
    }
    static bool is_awaited(std::uint64_t data, const std::vector<bool>& awaited) {
        const auto place = static_cast<std::uint32_t>(data);
        return (data & asked_bit) != 0 && place < awaited.size() && awaited[place];
    }
    void submitted() { patient_ = rounds_late_ = 0; }

    io_uring ring_{};
    bool made_ = false;
    std::vector<Asked> asked_;
    std::vector<std::uint32_t> free_;                      // places in it
    std::deque<std::pair<std::uint64_t, int>> put_aside_;  // data and result
    unsigned patient_ = 0;                                 // of what waits for submission: watches
    unsigned rounds_late_ = 0;                             // how many rounds they have waited
};

}  // namespace caisson::detail
