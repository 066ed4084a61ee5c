// Dom0's side of the local hypervisor: domains come and go. For the toolstack and the tests.
//
// Threads: one.
#pragma once

#include <sys/socket.h>

#include <vector>

#include "ring/local/connection.h"

namespace caisson::local {

struct CreatedDomain {
    DomainId id{};
    std::uint32_t generation = 0;
};

// What is in use by one domain.
struct DomainInfo {
    DomainId id{};
    std::uint32_t generation = 0;
    bool dying = false;          // killed, but its processes are not gone yet
    std::uint32_t grants = 0;    // references, quarantined ones too
    std::uint32_t regions = 0;   // share() calls alive
    std::uint32_t mappings = 0;  // regions of others mapped by it
    std::uint32_t ports = 0;
    std::uint32_t connections = 0;
    std::uint32_t quarantined = 0;  // pages it ended, or whose owner died, and that a peer has still mapped
};

class Control {
  public:
    // Through Dom0's socket; the broker refuses other users than its own.
    static Result<Control> open(const std::string& dom0_hypervisor_socket);

    // The two sockets listen already, where only this domain can reach them; whoever connects is the domain. `process`
    // is a pidfd of its PID 1 (-1: none): when that dies, the domain is released, with all it has. The store then has
    // /local/domain/<id>, readable for it; what else belongs there is the toolstack's to write.
    // All descriptors are borrowed.
    Result<CreatedDomain> create_domain(int hypervisor_listener, int xenstored_listener, int process = -1);

    // Kills its PID 1 and returns; the domain is gone from list() when its processes are. Without a process it is gone
    // at once. `generation` 0: whichever lives.
    Status destroy_domain(DomainId domain, std::uint32_t generation = 0);

    Result<std::vector<DomainInfo>> list_domains();

  private:
    explicit Control(Connection connection) : connection_(std::move(connection)) {}
    Connection connection_;
};

// A listening AF_UNIX socket of that type at `path`, mode 0600, replacing a stale one.
Result<Fd> listen_at(const std::string& path, int type = SOCK_SEQPACKET);

}  // namespace caisson::local
