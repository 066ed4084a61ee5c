// Connecting to an NBD server: the controller's part, by libnbd.
//
// The handshake (options, export names, what the server can do) runs here and not in the worker: libnbd brings 5 MiB of
// libraries (TLS, XML, Unicode) and their start-up into every process that links it, and all of their system calls into
// the filter. What is left after the handshake is two fixed headers (host_nbd.h), and those a worker speaks itself.
// libnbd is loaded when the first NBD disk is opened, so nobody else pays for it, and a machine may be without it.
#pragma once

#include <cstdint>

#include "backends/block/target.h"

namespace caisson::block::backend {

struct NbdExport {
    std::uint64_t bytes = 0;
    bool read_only = false, flush = false, trim = false;
    std::uint32_t minimum_block = 1, preferred_block = 4096;
};

class NbdServer {
  public:
    explicit NbdServer(const TargetName& name) : name_(name) {}

    struct Connection {
        Fd socket;  // past the handshake; simple replies only; non-blocking
        NbdExport found;
    };
    // Waits no longer than 3 seconds: the controller has other disks.
    Result<Connection> connect() const;
    // The same, and says goodbye to the server.
    Result<NbdExport> look() const;

  private:
    const TargetName& name_;
};

}  // namespace caisson::block::backend
