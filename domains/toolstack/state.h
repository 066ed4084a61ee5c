// Where a local hypervisor keeps what must outlive a command: its two sockets, a record for each domain, logs.
//
// Everything is below one folder that only its owner may enter: $CAISSON_STATE, else $XDG_RUNTIME_DIR/caisson, as root
// /run/caisson. Records are written by the keeper of a domain (keeper.h) and are as trusted as the folder.
// Threads: any.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocols/words.h"
#include "ring/fd.h"

namespace caisson::toolstack {

struct State {
    std::string folder;
    std::string hypervisor_socket() const { return folder + "/dom0/hypervisor"; }
    std::string xenstored_socket() const { return folder + "/dom0/xenstored"; }
    std::string records() const { return folder + "/domains"; }
    std::string stats() const { return folder + "/stats"; }  // of Dom0 itself, should it serve devices
    std::string logs() const { return folder + "/log"; }
    std::string log_of(const std::string& name) const { return logs() + "/" + name + ".log"; }
};

// `chosen`: the option --state; empty: as above. Nothing is created.
Result<State> find_state(const std::string& chosen);
// Creates the folders, mode 0700; refuses a folder that belongs to somebody else or that others may enter.
Status prepare_state(const State& state);
// One `create` at a time: what it checks (names) stays true until the lock is closed.
Result<Fd> lock_creation(const State& state);

// A process by pid and start time, so that a number that was given out again is not taken for the old one.
struct ProcessId {
    pid_t pid = 0;
    std::uint64_t start = 0;
    bool operator==(const ProcessId&) const = default;
};
std::optional<ProcessId> process(pid_t pid);
bool alive(const ProcessId& id);
// Who listens at Dom0's socket; none when no hypervisor runs.
std::optional<ProcessId> hypervisor_process(const State& state);

struct DomainRecord {
    std::uint16_t domid = 0;
    std::uint32_t generation = 0;
    std::string name, uuid, type;
    std::uint64_t memory_mib = 0;
    std::uint32_t vcpus = 0;
    bool driver_domain = false;
    ProcessId init, keeper;  // PID 1 of the domain, and who looks after it
    bool operator==(const DomainRecord&) const = default;
};
Status write_record(const State& state, const DomainRecord& record);
void remove_record(const State& state, std::uint16_t domid);
std::vector<DomainRecord> read_records(const State& state);

// Whether Domain-0 serves the consoles of domains that name no driver domain for them; said when a hypervisor starts.
Status say_consoles_served(const State& state, bool served);
bool consoles_served(const State& state);

// Said before a domain is killed on purpose: its keeper then does not restart it.
void mark_destroyed(const State& state, std::uint16_t domid);
bool marked_destroyed(const State& state, std::uint16_t domid);

}  // namespace caisson::toolstack
