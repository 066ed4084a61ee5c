// One service VM as its supervisor sees it: what is to be done now, and why. Pure: times and sights come from outside.
//
//     starting -> ready -> (gone | ill) -> waiting -> starting ...
//
// Ill is one that says `failed`, whose heart stands still, or that is not ready in time: it is destroyed. One that has
// never said a word of its health (no data/service/: a driver domain of other people's tools) is taken as ready after
// that time, and is well as long as it is there.
//
// Lives that end before they were ready for `steady` make a crash loop: the first is followed by another start at once,
// each further one by a pause twice as long as the last.
//
// Threads: one.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "protocols/words.h"

namespace caisson::supervisor {

using Clock = std::chrono::steady_clock;

struct Patience {
    Clock::duration start = std::chrono::seconds(60);  // from its creation, or its last word "ready", to "ready"
    Clock::duration heart = std::chrono::seconds(10);  // between two beats
    Clock::duration steady = std::chrono::seconds(60);
    Clock::duration first_pause = std::chrono::seconds(1), longest_pause = std::chrono::seconds(60);
};

// What is in xenstore. The words are the domain's own: compared, never believed to be of a form.
struct Sight {
    std::optional<DomainId> domain;  // that has its name
    std::string state, why, heartbeat;
};

enum class State : std::uint8_t { waiting, starting, ready, ill };
const char* text_of(State state);

class Supervised {
  public:
    enum class Wish : std::uint8_t { nothing, create, destroy };

    explicit Supervised(Patience patience = {}) : patience_(patience) {}

    // Called again and again; `wish` is given until it came true.
    Wish look(const Sight& sight, Clock::time_point now);
    // The command that was to make it failed.
    void not_created(const std::string& why, Clock::time_point now);
    // It was to be another than it was, and that cannot be made: as it was it may be made at once.
    void not_changed(const std::string& why, Clock::time_point now);
    // On purpose: destroyed and created again, and that is no sign of illness.
    void replace(const std::string& why);

    State state() const { return state_; }
    // Why it is ill, or waits; the end of its last life when it is well. May have the domain's own words in it: whoever
    // shows them escapes them.
    const std::string& why() const { return why_; }
    std::optional<DomainId> domain() const { return domain_; }
    unsigned restarts() const { return restarts_; }        // lives that ended
    unsigned short_lives() const { return short_lives_; }  // in a row, tries that came to nothing among them
    // Until when it is not created.
    Clock::time_point due() const { return due_; }

  private:
    void begin(const Sight& sight, Clock::time_point now);
    void end(Clock::time_point now);
    void wait(Clock::time_point now, unsigned without_pause);
    Wish watch(const Sight& sight, Clock::time_point now);

    const Patience patience_;
    State state_ = State::waiting;
    std::string why_;
    std::optional<DomainId> domain_;
    std::string heartbeat_;
    bool has_heart_ = false;  // in this life or an earlier one
    bool on_purpose_ = false;
    unsigned restarts_ = 0, short_lives_ = 0;
    Clock::time_point due_{}, beat_{}, unready_since_{};
    std::optional<Clock::time_point> ready_since_;
};

}  // namespace caisson::supervisor
