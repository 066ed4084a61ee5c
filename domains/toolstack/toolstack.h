// Domains of the local hypervisor: made, listed, destroyed. What xl is to Xen.
//
// A Toolstack is Dom0's connection to a running hypervisor. Threads: one.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "domains/domain/birth.h"
#include "domains/domain/plan.h"
#include "domains/toolstack/devices.h"
#include "domains/toolstack/domain_config.h"
#include "domains/toolstack/state.h"
#include "protocols/words.h"
#include "ring/local/control.h"
#include "ring/store.h"

namespace caisson::toolstack {

// How long a backend gets to close a device before its directory is removed without it.
inline constexpr std::chrono::milliseconds closing_patience{2000};

struct ListedDomain {
    local::DomainInfo usage;
    std::optional<DomainRecord> record;  // absent for Dom0, and for a domain that somebody else made
    std::string name() const;
};

class Toolstack {
  public:
    // ECONNREFUSED when no hypervisor runs there.
    static Result<Toolstack> open(const State& state);

    // A domain that waits to be started: it has an id and its tree in xenstore.
    struct Prepared {
        domain::Newborn process;
        DomainRecord record;
        domain::Plan plan;
    };
    // Fails without a trace: what was written is removed again.
    Result<Prepared> prepare(const DomainConfig& config, int output);

    // In order of the id, Dom0 first.
    Result<std::vector<ListedDomain>> list();
    // By name or id; ESRCH when there is none.
    Result<ListedDomain> find(std::string_view name_or_id);

    // Returns when the domain and everything about it in xenstore is gone.
    Status destroy(const ListedDomain& domain);
    // After its death, by its keeper, or by destroy() when it has none.
    Status bury(const DomainRecord& record);

    // Who serves a disk; an error where that domain does not run, or serves nothing.
    Result<DomainId> disk_backend(const Disk& disk);

    Store& store() { return store_; }
    const State& state() const { return state_; }

  private:
    Toolstack(State state, local::Control control, Store store)
        : state_(std::move(state)), control_(std::move(control)), store_(std::move(store)) {}
    // `where`: "FILE:LINE: KEY", of what names the backend.
    Result<DomainId> backend(const std::string& name, const std::string& where);
    Result<DomainId> console_backend(const std::string& name, const std::string& where);
    Status refuse_twins(const DomainConfig& config, DomainId domain);
    Status write_devices(const DomainConfig& config, DomainId domain);
    Status claim_name(const std::string& name);
    Status give_uplink(const DomainConfig& config, pid_t init);

    State state_;
    local::Control control_;
    Store store_;
};

domain::Plan plan_of(const DomainConfig& config, DomainId domain);

}  // namespace caisson::toolstack
