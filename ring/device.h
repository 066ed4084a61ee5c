// What a device class is to the framework. A class supplies two halves twice, and never switches on a XenbusState:
//
//   DeviceControl  in the controller: speaks xenstore, opens what the device needs, negotiates, fills a Handover;
//   DeviceWorker   in the worker: the data path, with nothing but what the Handover holds.
//
// The frontend and the backend of a class each have such a pair; a ClassEntry in domains/catalogue.cpp names them.
// Threads: each object lives on one thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/words.h"
#include "ring/handover.h"
#include "ring/hypervisor.h"
#include "ring/log.h"
#include "ring/loop.h"
#include "ring/stats.h"
#include "ring/store.h"

namespace caisson {

enum class Role : std::uint8_t { frontend, backend };

struct DeviceAddress {
    std::string device_class;   // the directory name in xenstore: "vif", "console"
    Role role = Role::backend;  // ours
    DomainId frontend{}, backend{};
    DeviceId id{};

    DomainId peer() const { return role == Role::backend ? frontend : backend; }
    std::string name() const {  // "vif 3/0 backend": class, frontend's domain, device
        return device_class + " " + std::to_string(frontend.raw) + "/" + std::to_string(id.raw) +
               (role == Role::backend ? " backend" : " frontend");
    }
};

// Lent to a DeviceControl for the length of a call.
struct ControlContext {
    Hypervisor& hypervisor;
    Directory own;   // our directory: backend/vif/3/0 or device/vif/0
    Directory peer;  // the other side's: everything in it is untrusted
    const DeviceAddress& address;
    Log& log;
};

// Calls come in the order in which the XenbusState table produces them; after disconnect() a device may be offered and
// connected again, any number of times. Errors: fault peer closes the device, fault host too (with the text in
// xenstore's error node), neither ends the controller.
class DeviceControl {
  public:
    virtual ~DeviceControl() = default;

    // Backend: the directory appeared, or the frontend starts over. Open host resources (first time) and publish
    // features; the framework then writes state InitWait. Frontend: prepare the attachment; nothing of the peer is
    // known yet.
    virtual Status offer(ControlContext& context) = 0;

    // Backend: the frontend published its rings (Initialised or Connected). Frontend: the backend is in InitWait (or
    // further): share rings, write keys. The Handover goes to a worker.
    virtual Result<Handover> connect(ControlContext& context) = 0;

    // Frontend: which state to write after connect(). netfront and blkfront say Connected at once, the console and the
    // media classes Initialised.
    virtual bool connected_at_once() const { return true; }

    // Both sides are Connected.
    virtual void connected(ControlContext&) {}

    // Undo connect(), also one that failed half way. The worker no longer serves the device. Host resources may stay
    // open for the next connect.
    virtual void disconnect(ControlContext& context) = 0;

    // Keys in the own and in the peer's directory that may change while connected.
    virtual std::vector<std::string> watched_own() const { return {}; }
    virtual std::vector<std::string> watched_peer() const { return {}; }
    // One of them changed: what to tell the worker, if anything.
    virtual Result<std::optional<std::vector<std::byte>>> changed(ControlContext&) { return std::nullopt; }

    // Whether the worker may write this key of the own directory (WorkerContext::publish). It may have been taken over:
    // never a key that the controller reads to know what to open or to enforce.
    virtual bool worker_may_publish(std::string_view) const { return false; }

    // Devices with the same non-empty group share one worker process (net: the bridge). Asked after offer().
    virtual std::string worker_group() const { return {}; }
};

// Lent to a DeviceWorker for its whole life.
struct WorkerContext {
    Loop& loop;
    Hypervisor& hypervisor;  // restricted: grants, with this device's peer
    DeviceAddress address;
    std::span<std::byte> journal;  // Handover::journal_bytes long; private to this domain
    bool successor = false;        // the journal and the rings hold the state of a worker that died
    DeviceStats& stats;
    Log& log;
    // The peer broke the rules, or the host made it impossible to go on: stop touching the ring first, then say it. The
    // controller closes the device. At most once.
    std::function<void(const Error&)> broken;
    // Something the controller should write into our own directory (key, value), for example a carrier. Only what
    // DeviceControl::worker_may_publish() names.
    std::function<void(std::string_view key, std::string_view value)> publish;
    // Shared by the devices of one worker group in this process; empty at the first device.
    std::shared_ptr<void>& group;
};

// Serves from construction to destruction. The destructor gives everything back; nothing of it is called afterwards.
class DeviceWorker {
  public:
    virtual ~DeviceWorker() = default;
    // What DeviceControl::changed() returned.
    virtual Status update(std::span<const std::byte>) { return {}; }
};

// The system calls beyond the base list that a class's sealed worker may make.
struct WorkerPolicy {
    std::vector<int> system_calls;         // SCMP_SYS numbers
    std::vector<std::uint8_t> operations;  // IORING_OP_*
    std::uint64_t max_file_size = 0;       // RLIMIT_FSIZE, in bytes
    std::chrono::microseconds spin{0};     // Loop::Options::spin of the worker's loop
};

struct ClassHalf {
    std::unique_ptr<DeviceControl> (*control)() = nullptr;
    Result<std::unique_ptr<DeviceWorker>> (*serve)(WorkerContext, HandoverReader&) = nullptr;
    WorkerPolicy (*policy)() = nullptr;  // null: the base list is enough
};

struct ClassEntry {
    std::string_view name;
    ClassHalf frontend, backend;
};

// Passed to main; nothing registers itself.
using Catalogue = std::span<const ClassEntry>;

}  // namespace caisson
