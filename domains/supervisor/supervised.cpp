#include "domains/supervisor/supervised.h"

#include <algorithm>

namespace caisson::supervisor {
namespace {

constexpr std::size_t longest_why = 300;

std::string seconds(Clock::duration time) {
    return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

}  // namespace

const char* text_of(State state) {
    switch (state) {
        case State::waiting: return "waiting";
        case State::starting: return "starting";
        case State::ready: return "ready";
        case State::ill: return "ill";
    }
    return "?";
}

Supervised::Wish Supervised::look(const Sight& sight, Clock::time_point now) {
    if (domain_ && sight.domain != domain_) end(now);
    if (!sight.domain) return now >= due_ ? Wish::create : Wish::nothing;
    if (!domain_) begin(sight, now);
    return watch(sight, now);
}

void Supervised::begin(const Sight& sight, Clock::time_point now) {
    domain_ = sight.domain;
    state_ = State::starting;
    heartbeat_ = sight.heartbeat;
    beat_ = unready_since_ = now;
    ready_since_.reset();
}

void Supervised::end(Clock::time_point now) {
    const bool steady = ready_since_ && now - *ready_since_ >= patience_.steady;
    if (state_ != State::ill) why_ = "it is gone";
    ++restarts_;
    domain_.reset();
    if (steady || std::exchange(on_purpose_, false)) short_lives_ = 0;
    wait(now, 1);
}

void Supervised::not_created(const std::string& why, Clock::time_point now) {
    why_ = why;
    wait(now, 0);  // what does not even begin is not tried again at once
}

void Supervised::not_changed(const std::string& why, Clock::time_point now) {
    why_ = why;
    state_ = State::waiting;
    due_ = now;
}

void Supervised::wait(Clock::time_point now, unsigned without_pause) {
    state_ = State::waiting;
    due_ = now;
    if (++short_lives_ <= without_pause) return;
    const auto doublings = std::min(short_lives_ - without_pause - 1, 20U);
    due_ += std::min<Clock::duration>(patience_.first_pause * (1U << doublings), patience_.longest_pause);
}

void Supervised::replace(const std::string& why) {
    if (!domain_) return;
    on_purpose_ = true;
    state_ = State::ill;
    why_ = why;
}

Supervised::Wish Supervised::watch(const Sight& sight, Clock::time_point now) {
    const auto ill = [this](std::string why) {
        state_ = State::ill;
        why_ = std::move(why);
        return Wish::destroy;
    };
    if (state_ == State::ill) return Wish::destroy;
    if (sight.heartbeat != heartbeat_) {
        heartbeat_ = sight.heartbeat;
        beat_ = now;
    }
    has_heart_ |= !sight.heartbeat.empty();
    if (sight.state == "failed") return ill("it failed: " + sight.why.substr(0, longest_why));
    const bool late = now - unready_since_ >= patience_.start;
    const bool silent = sight.state.empty() && sight.heartbeat.empty() && !has_heart_;
    if (sight.state == "ready" || (silent && (late || ready_since_))) {
        if (!ready_since_) ready_since_ = now;
        state_ = State::ready;
        unready_since_ = now;
    } else {
        ready_since_.reset();
        state_ = State::starting;
        if (late) return ill("it was not ready within " + seconds(patience_.start));
    }
    if (state_ == State::ready && has_heart_ && now - beat_ >= patience_.heart)
        return ill("its heart has stood still for " + seconds(patience_.heart));
    return Wish::nothing;
}

}  // namespace caisson::supervisor
