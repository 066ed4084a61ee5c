// The local hypervisor as a domain sees it: the Hypervisor of ring/hypervisor.h over one socket to the broker.
//
// Both functions ignore SIGPIPE in the calling process: a notify to a peer that is gone must be an error value, and
// pipes know no MSG_NOSIGNAL. A process that notifies without opening a port has to do that itself.
//
// After the open, the calls need these system calls only: sendmsg recvmsg ppoll mmap munmap fcntl(F_GET_SEALS) fstat
// close read write shutdown.
//
// EAGAIN: the kernel takes no more descriptors into sockets for this user at the moment. Nothing was done, and the
// connection is as good as before.
#pragma once

#include <memory>
#include <string>

#include "ring/hypervisor.h"

namespace caisson::local {

// As the domain whose socket this is.
Result<std::unique_ptr<Hypervisor>> open(const std::string& hypervisor_socket);

// As the holder of a descriptor from Hypervisor::restrict_to. Whoever used it before must be dead: what it mapped
// counts as unmapped from here on, what it shared can be taken over with reclaim(). The descriptor may be duplicated
// for the next one, but only one process may use it at a time.
Result<std::unique_ptr<Hypervisor>> open_restricted(Fd connection);

}  // namespace caisson::local
