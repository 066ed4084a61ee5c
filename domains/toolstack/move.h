// Devices whose backend domain has died: given to its successor.
//
// What a device was is read from Dom0's own copy below /libxl, never from what the two domains have (XSA-175, XSA-178);
// of the frontend's directory only those keys are kept that the toolstack itself writes, and they go back into the
// guest's own directory alone.
//
// A frontend of ours says in its directory that it follows (ring/endpoint.h, follows_key): it sees another backend-id,
// connects there and issues again what is unanswered. A stock one (xen-blkfront, xen-netfront) looks for its backend
// once in its life: its device has to go and come back: take_away(), some time, move_device().
//
// Only after the death of the old backend: a write of its own that came late would hit what the successor has written.
// Threads: one, the Store's.
#pragma once

#include <vector>

#include "domains/toolstack/tree.h"
#include "protocols/words.h"
#include "ring/store.h"

namespace caisson::toolstack {

// The devices of all domains that this one served; it need not be there any more.
Result<std::vector<DeviceLink>> served_by(Store& store, DomainId backend);

// Whether the frontend says that it goes where backend-id points. A guest that lies harms its own device.
Result<bool> follows(Store& store, const DeviceLink& link);

// One transaction: both directories as libxl writes them, with `to` as the backend, and Dom0's copy. An error for a
// class whose keys are not known here.
Status move_device(Store& store, const DeviceLink& link, DomainId to);

// The frontend's directory goes, and the backend's if there is one; what the toolstack had there is kept in Dom0's
// copy: the guest's kernel removes the device. When it has done so cannot be seen from here.
Status take_away(Store& store, const DeviceLink& link);

}  // namespace caisson::toolstack
