// The devices of a domain, by the copy that only Dom0 can write: neither the guest's directory nor the backend's is
// asked which devices there are or whose they are (XSA-175, XSA-178).
//
// Threads: one, the Store's.
#pragma once

#include <chrono>
#include <vector>

#include "domains/toolstack/tree.h"
#include "protocols/words.h"
#include "protocols/xenbus.h"
#include "ring/store.h"

namespace caisson::toolstack {

// What /libxl/N/device names. Entries that are no devices are left out.
Result<std::vector<DeviceLink>> devices_of(Store& store, DomainId domain);

// The backend's state, and the frontend's; whatever the peers wrote there that is no state is `unknown`.
struct DeviceStates {
    XenbusState frontend = XenbusState::unknown, backend = XenbusState::unknown;
    bool connected() const { return backend == XenbusState::connected && frontend == XenbusState::connected; }
};
Result<DeviceStates> states(Store& store, const DeviceLink& link);
// Its backend has given it up, and said why: it will not connect unless something changes.
bool is_refused(Store& store, const DeviceLink& link, const DeviceStates& now);
// What its backend has said in xenstore (a stranger's words: escaped, and not too many), or where else to look.
std::string why_not_connected(Store& store, const DeviceLink& link);

// Asks the backend to close for good (online 0, state Closing), and whether it has.
Status ask_to_close(Store& store, const DeviceLink& link);
Result<bool> closed(Store& store, const DeviceLink& link);

// Asks all backends to close, waits for them no longer than `patience` in all, then removes
// the directories whatever they did. The frontends are gone already.
Status detach_all(Store& store, const std::vector<DeviceLink>& devices, std::chrono::milliseconds patience);

// One device of a domain that lives: the same, but the frontend has a say. False, and everything stays, when it does
// not close in time and `force` is not set.
Result<bool> detach(Store& store, const DeviceLink& link, std::chrono::milliseconds patience, bool force);

// Every trace of a domain that is dead: its devices, /local/domain/N, /vm/UUID, /libxl/N. Nothing to do is success.
Status remove_domain(Store& store, DomainId domain, const std::string& uuid, std::chrono::milliseconds patience);

}  // namespace caisson::toolstack
