// What a driver domain tells the control domain, in its own part of xenstore (data/service/, relative to its
// directory). In a service VM PID 1 says it for all controllers, elsewhere `caisson devd` for itself:
//
//   image      which one it is: the variant's name, as its recipe is called; "devd" where it is none
//   state      starting | ready | stopping | failed
//   why        of failed: what it lacks
//   heartbeat  a number that grows while the controllers' loops turn: every two seconds, as long as all of them do
//   restarts   how many times a controller had to be started again
//   memory     of a service VM: KiB in use, renewed with the heartbeat
//   bytes      what its backends carried, both ways: of each class "CLASS=N", renewed with the heartbeat
//   uptime     milliseconds from the kernel's start to the first "ready"
//
// A domain whose heartbeat stands still is ill, whatever its state says (domains/supervisor/). Threads: one.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "ring/log.h"
#include "ring/store.h"

namespace caisson::domain {

class Health {
  public:
    static constexpr std::chrono::seconds beat_period{2};

    static Result<Health> open(const std::string& image);

    void starting() { tell("state", "starting"); }
    void stopping() { tell("state", "stopping"); }
    void failed(const std::string& why) {
        tell("why", why);
        tell("state", "failed");
    }
    void memory(std::uint64_t kib) { tell("memory", std::to_string(kib)); }
    void beat();  // the first says "ready"
    void restarted() { tell("restarts", std::to_string(++restarts_)); }

  private:
    explicit Health(Store store) : store_(std::move(store)) {}
    void tell(const std::string& key, const std::string& value);

    Store store_;
    Log log_{"health"};
    std::uint64_t beats_ = 0, restarts_ = 0;
};

}  // namespace caisson::domain
