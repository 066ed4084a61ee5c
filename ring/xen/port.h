// Real Xen as a domain sees it: the Hypervisor of ring/hypervisor.h over gntdev, gntalloc and evtchn.
//
// Works in Dom0 and in unprivileged PV and PVH domains. No hypercall goes through privcmd: an unprivileged domain has
// none. Sources: libxengnttab (map and copy), Linux' xen/gntalloc.h and xen/evtchn.h by ioctl, because open files of
// these are what a worker is handed.
//
// What differs from the local port is said in capabilities(): no direct_view (a grant is reached by copy, or by a map
// of its own), and end_tells is false (gntalloc cannot be asked whether a page is still mapped: ending gives it to the
// kernel, which keeps it from reuse until the peer has let go, so nothing is ever in our own quarantine).
//
// Threads: as every Hypervisor.
#pragma once

#include <memory>

#include "ring/hypervisor.h"

struct xengntdev_handle;

namespace caisson::xen {

// The kernel runs in a Xen domain and has the devices that the port needs.
bool present();

// As this domain.
Result<std::unique_ptr<Hypervisor>> open();

// What a worker opens before it is sealed. gntdev cannot be restricted to some peers (it has no such call): a worker
// that was taken over can map whatever others granted to its domain. The domain is the border then.
class GrantDevice {
  public:
    static Result<GrantDevice> open();
    GrantDevice(GrantDevice&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    GrantDevice& operator=(GrantDevice&&) = delete;
    ~GrantDevice();
    xengntdev_handle* handle() const { return handle_; }

  private:
    explicit GrantDevice(xengntdev_handle* handle) : handle_(handle) {}
    xengntdev_handle* handle_;
};

// As the holder of a descriptor from Hypervisor::restrict_to. `grants` must outlive the result. From then on the calls
// need these system calls only: mmap munmap ioctl close.
Result<std::unique_ptr<Hypervisor>> open_restricted(Fd handed, const GrantDevice& grants);

}  // namespace caisson::xen
