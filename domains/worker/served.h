// One device being served in this process: the mapped journal and statistics, its Hypervisor, and the DeviceWorker.
#pragma once

#include "domains/worker/attachment.h"
#include "ring/port.h"

namespace caisson {

// Memory mapped from a descriptor; private to this domain.
class Mapping {
  public:
    Mapping() = default;
    Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();
    static Result<Mapping> of(const Fd& fd, std::size_t length);
    std::span<std::byte> bytes() const { return bytes_; }

  private:
    std::span<std::byte> bytes_;
};

// What a served device has to say; called from within its own functions, so nothing of it may be destroyed in there.
struct ServedEvents {
    std::function<void(const Error&)> broken;
    std::function<void(std::string_view key, std::string_view value)> publish;
};

class Served {
  public:
    // `port` outlives it.
    static Result<std::unique_ptr<Served>> make(Loop& loop, const WorkerPort& port, const ClassHalf& half,
                                                ReceivedAttachment attachment, ServedEvents events,
                                                std::shared_ptr<void>& group);
    Status update(std::span<const std::byte> message) { return worker_->update(message); }

  private:
    explicit Served(DeviceAddress address) : address_(std::move(address)), log_(address_.name()) {}
    DeviceAddress address_;
    Log log_;
    Mapping journal_, statistics_;
    std::unique_ptr<Hypervisor> hypervisor_;
    std::unique_ptr<DeviceWorker> worker_;  // the first to go
};

}  // namespace caisson
