// What breaks a device in its worker: found anywhere, noted once, told to the controller once.
//
// A fault may be found while another device is polled (a switch delivers from one to the next) and is then only noted;
// it is told from the device's own turn, because telling may end the device's life. Threads: the worker's.
#pragma once

#include <optional>
#include <utility>

#include "ring/device.h"

namespace caisson {

class DeviceFault {
  public:
    // Found; from then on no ring of the device may be touched.
    explicit operator bool() const { return fault_.has_value(); }

    // True the first time: whoever finds it stops what else reads or answers.
    bool note(WorkerContext& context, const Error& error) {
        if (fault_) return false;
        fault_ = error;
        context.stats.broken.add(1);
        context.log.peer(error);
        return true;
    }

    // Does some work unless the device is broken; found(error) is for the fault that it comes upon, and ends in note().
    // Nothing of the device may be touched after it returned false.
    template <class Work, class Found>
    bool turn(WorkerContext& context, Work&& work, Found&& found) {
        if (!fault_) {
            const Result<bool> progress = work();
            if (progress && !fault_) return *progress;
            if (!progress) found(progress.error());
        }
        if (!std::exchange(told_, true)) {
            const auto broken = context.broken;  // may end this object's life: nothing is touched after it
            const Error error = *fault_;
            broken(error);
        }
        return false;
    }

  private:
    std::optional<Error> fault_;
    bool told_ = false;
};

}  // namespace caisson
