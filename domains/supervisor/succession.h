// The devices of driver domains that died, on their way to the successor (toolstack/move.h).
//
// A frontend that follows is moved as soon as its old backend is dead. From the others the device is taken; after a
// pause in which the guest's kernel is to remove it, it comes back. A kernel that did not notice (its state stays
// Initialising although the new backend waits for it, or is Closed, by the old device's end) gets twice as long, five
// times. A guest's interfaces come before its disks: Linux removes one device after the other, and a disk whose
// requests nobody answers may hold that up for ever.
//
// Threads: one, the Store's.
#pragma once

#include <set>
#include <vector>

#include "domains/supervisor/supervised.h"
#include "domains/toolstack/move.h"
#include "ring/log.h"
#include "ring/store.h"

namespace caisson::supervisor {

class Succession {
  public:
    Succession(Store& store, Log& log, Clock::duration pause) : store_(store), log_(log), pause_(pause) {}

    // One that may have left devices behind. As long as it lives they stay where they are.
    void inherit(DomainId predecessor) { predecessors_.insert(predecessor); }
    // Whose devices are not all moved yet: for a supervisor that comes after this one.
    const std::set<DomainId>& predecessors() const { return predecessors_; }

    // As far as can be now.
    void look(DomainId successor, Clock::time_point now);
    bool complete() const { return predecessors_.empty() && away_.empty(); }

  private:
    // A device of a stock frontend, taken from its guest or given back, not yet seen to be taken up.
    struct Away {
        toolstack::DeviceLink link;
        Clock::time_point due{};
        unsigned tries = 0;
        bool back = false;
    };
    Status move_from(DomainId predecessor, DomainId successor, Clock::time_point now);
    Status move_one(const toolstack::DeviceLink& link, const std::vector<toolstack::DeviceLink>& all,
                    DomainId successor, Clock::time_point now);
    Status move_stock(const toolstack::DeviceLink& link, const std::vector<toolstack::DeviceLink>& all,
                      Clock::time_point now);
    Result<bool> settled(Away& device, DomainId successor, Clock::time_point now);

    Store& store_;
    Log& log_;
    const Clock::duration pause_;
    std::set<DomainId> predecessors_;
    std::vector<Away> away_;
    std::vector<toolstack::DeviceLink> refused_;  // of classes that cannot be moved
};

}  // namespace caisson::supervisor
