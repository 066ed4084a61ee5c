#include "ring/port.h"

#include <unistd.h>

#include <cstdlib>

#include "ring/local/port.h"

namespace caisson {

HypervisorAddress find_hypervisor(const std::string& local_socket) {
    if (!local_socket.empty()) return {PortKind::local, local_socket};
    if (const char* named = std::getenv("CAISSON_HYPERVISOR"); named != nullptr && *named != 0)
        return {PortKind::local, named};
    const std::string usual = "/run/caisson/hypervisor";
    const bool xen = ::access(usual.c_str(), F_OK) != 0 && xen::present();
    return {xen ? PortKind::xen : PortKind::local, xen ? std::string() : usual};
}

Result<std::unique_ptr<Hypervisor>> open_hypervisor(const HypervisorAddress& address) {
    return address.kind == PortKind::xen ? xen::open() : local::open(address.local_socket);
}

Result<WorkerPort> WorkerPort::open(PortKind kind) {
    if (kind == PortKind::local) return WorkerPort();
    return WorkerPort(TRY(xen::GrantDevice::open()));
}

Result<std::unique_ptr<Hypervisor>> WorkerPort::hypervisor(Fd restricted) const {
    return grants_ ? xen::open_restricted(std::move(restricted), *grants_)
                   : local::open_restricted(std::move(restricted));
}

}  // namespace caisson
