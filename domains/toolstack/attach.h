// Disks of a domain that runs: given to it, taken from it, grown. What xl block-attach and block-detach are to Xen.
//
// A disk's directories are written and removed as for a domain that is made, so a guest cannot tell the difference.
// Threads: one, the Toolstack's.
#pragma once

#include <string>
#include <vector>

#include "domains/toolstack/toolstack.h"

namespace caisson::toolstack {

// `spec` is an entry of disk=, `more` are KEY=VALUE of caisson_disk= ("rate-iops=100"). When it returns the disk is in
// xenstore; that it connects is up to both domains.
Result<DeviceLink> attach_disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& spec,
                               const std::vector<std::string>& more);

// Asks both sides to close it and removes it when they have. A guest that goes on using it keeps it: then this is an
// error, unless `force` takes it away all the same.
Status detach_disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& vdev, bool force);

// The target has another size now: the backend looks, and tells the frontend.
Status resize_disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& vdev);

}  // namespace caisson::toolstack
