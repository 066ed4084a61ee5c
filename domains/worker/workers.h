// Where connected devices are served: worker processes, or this very thread.
//
// Threads: one, the controller's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "domains/worker/attachment.h"
#include "ring/port.h"

namespace caisson {

// The device as its workers' owner sees it. Never called from inside a call to Workers.
class Attended {
  public:
    virtual ~Attended() = default;
    virtual void attached() = 0;
    virtual void failed(const Error& error) = 0;  // instead of attached(), or when workers die again and again
    virtual void broken(const Error& error) = 0;
    virtual void publish(std::string_view key, std::string_view value) = 0;
    virtual void detached() = 0;
    virtual void restarted() = 0;  // the worker died, and its successor serves the device now
};

class Workers {
  public:
    virtual ~Workers() = default;
    // `attachment` and `device` must stay until detached(). `number` is the caller's name for the device.
    virtual void attach(std::uint32_t number, const Attachment& attachment, Attended& device) = 0;
    virtual void update(std::uint32_t number, std::span<const std::byte> message) = 0;
    // The attachment has another hypervisor connection, because the one before was lost: whoever serves the device
    // starts again with this one, as if it had been killed. Answered by restarted().
    virtual void renew(std::uint32_t number) = 0;
    // Answered by detached(), whatever became of the worker.
    virtual void detach(std::uint32_t number) = 0;
};

struct WorkerOptions {
    std::string program = "/proc/self/exe";
    std::vector<std::string> arguments{"worker"};
    PortKind port = PortKind::local;
    bool spares = true;  // keep one sealed worker ready for each class half in use
};

// A process a device or group, sealed; killed ones are replaced, and the successor goes on from the journal.
std::unique_ptr<Workers> make_process_workers(Loop& loop, WorkerOptions options);
// Everything in the caller's thread and loop, without a sandbox: for a vendor's first steps and for tests.
std::unique_ptr<Workers> make_inline_workers(Loop& loop, WorkerPort port = {});

}  // namespace caisson
