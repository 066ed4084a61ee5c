// Which hypervisor this machine has, and the way to it: the one place that knows both ports.
//
// Local where a local hypervisor's socket is named or found; else Xen, where the kernel has Xen's devices.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ring/hypervisor.h"
#include "ring/xen/port.h"

namespace caisson {

enum class PortKind : std::uint32_t { local, xen };

// `local_socket`: empty for $CAISSON_HYPERVISOR, else /run/caisson/hypervisor where that exists.
struct HypervisorAddress {
    PortKind kind = PortKind::local;
    std::string local_socket;
};
HypervisorAddress find_hypervisor(const std::string& local_socket = {});

// As the whole domain.
Result<std::unique_ptr<Hypervisor>> open_hypervisor(const HypervisorAddress& address);

// What a worker opens before it is sealed; afterwards it makes a Hypervisor of each descriptor that it is handed.
// Outlives them.
class WorkerPort {
  public:
    WorkerPort() = default;  // the local port: nothing has to be opened before
    static Result<WorkerPort> open(PortKind kind);
    Result<std::unique_ptr<Hypervisor>> hypervisor(Fd restricted) const;

  private:
    explicit WorkerPort(std::optional<xen::GrantDevice> grants) : grants_(std::move(grants)) {}
    std::optional<xen::GrantDevice> grants_;  // Xen
};

}  // namespace caisson
