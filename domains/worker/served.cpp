#include "domains/worker/served.h"

#include <sys/mman.h>

namespace caisson {

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
}

Mapping::~Mapping() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

Result<Mapping> Mapping::of(const Fd& fd, std::size_t length) {
    Mapping mapping;
    if (length == 0) return mapping;
    void* base = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (base == MAP_FAILED) return host_fault(errno, "mmap");
    mapping.bytes_ = {static_cast<std::byte*>(base), length};
    return mapping;
}

Result<std::unique_ptr<Served>> Served::make(Loop& loop, const WorkerPort& port, const ClassHalf& half,
                                             ReceivedAttachment attachment, ServedEvents events,
                                             std::shared_ptr<void>& group) {
    const AttachBody& body = attachment.body;
    std::unique_ptr<Served> served(
        new Served({.device_class = class_name(body.device_class),
                    .role = body.role == static_cast<std::uint32_t>(Role::backend) ? Role::backend : Role::frontend,
                    .frontend = DomainId(body.frontend),
                    .backend = DomainId(body.backend),
                    .id = DeviceId(body.id)}));
    served->journal_ = TRY(Mapping::of(attachment.journal, body.journal_bytes));
    served->statistics_ = TRY(Mapping::of(attachment.statistics, sizeof(DeviceStats)));
    served->hypervisor_ = TRY(port.hypervisor(std::move(attachment.hypervisor)));
    // A second complaint would be about a device that is already being taken down.
    auto once = [broken = std::move(events.broken), said = false](const Error& error) mutable {
        if (!std::exchange(said, true)) broken(error);
    };
    WorkerContext context{.loop = loop,
                          .hypervisor = *served->hypervisor_,
                          .address = served->address_,
                          .journal = served->journal_.bytes(),
                          .successor = body.successor != 0,
                          .stats = *reinterpret_cast<DeviceStats*>(served->statistics_.bytes().data()),
                          .log = served->log_,
                          .broken = std::move(once),
                          .publish = std::move(events.publish),
                          .group = group};
    served->worker_ = TRY(half.serve(std::move(context), attachment.reader));
    return served;
}

}  // namespace caisson
