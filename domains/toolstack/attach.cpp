#include "domains/toolstack/attach.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocols/block_names.h"
#include "ring/log.h"

namespace caisson::toolstack {
namespace {

constexpr const char* disk_class = "vbd";
constexpr std::chrono::milliseconds detach_patience{10'000};  // a guest may have much to write back

Result<std::vector<DeviceLink>> disks_of(Toolstack& toolstack, const ListedDomain& domain) {
    auto all = TRY(devices_of(toolstack.store(), domain.usage.id));
    std::erase_if(all, [](const DeviceLink& link) { return link.device_class != disk_class; });
    return all;
}

// By any of its names: "xvda", "d0p0", "51712".
Result<DeviceLink> disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& vdev) {
    const auto id = block::virtual_device(vdev);
    if (!id) return unsupported("", fmt::format("'{}' is no name like xvda, sda1, hda or d0p0", escaped(vdev)));
    const auto all = TRY(disks_of(toolstack, domain));
    std::string known;
    for (const auto& link : all) {
        if (link.id.raw == *id) return link;
        const auto name = TRY(toolstack.store().read(trusted_path(link) + "/dev"));
        known += (known.empty() ? "" : ", ") + name.value_or(std::to_string(link.id.raw));
    }
    return unsupported("", fmt::format("{} has no disk {} ({})", domain.name(), escaped(vdev),
                                       known.empty() ? "it has none" : "it has " + known));
}

Status refuse_control_domain(const ListedDomain& domain) {
    if (domain.usage.id != control_domain) return {};
    return unsupported("", "Domain-0 is this machine: it has no devices of ours");
}

}  // namespace

Result<DeviceLink> attach_disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& spec,
                               const std::vector<std::string>& more) {
    TRY(refuse_control_domain(domain));
    std::vector<Disk> disks{TRY(parse_disk(spec))};
    disks.front().where = "disk";
    for (const auto& one : more) TRY(refine_disk(disks, fmt::format("vdev={},{}", disks.front().vdev, one)));
    const Fd lock = TRY(lock_creation(toolstack.state()));
    const auto present = TRY(disks_of(toolstack, domain));
    for (const auto& link : present)
        if (link.id.raw == disks.front().id)
            return unsupported("", fmt::format("{} has a disk {} already", domain.name(), disks.front().vdev));
    const DomainId backend = TRY(toolstack.disk_backend(disks.front()));
    TRY(write_tree(toolstack.store(), vbd_tree(disks.front(), domain.usage.id, backend)));
    return DeviceLink{
        .device_class = disk_class, .id = DeviceId{disks.front().id}, .frontend = domain.usage.id, .backend = backend};
}

Status detach_disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& vdev, bool force) {
    const DeviceLink link = TRY(disk(toolstack, domain, vdev));
    const bool closed = TRY(detach(toolstack.store(), link, force ? closing_patience : detach_patience, force));
    if (closed) return {};
    return unsupported("", fmt::format("{} still uses {}: it goes when the guest lets go of it (--force takes it away "
                                       "at once, and loses what is not written)",
                                       domain.name(), vdev));
}

Status resize_disk(Toolstack& toolstack, const ListedDomain& domain, const std::string& vdev) {
    const DeviceLink link = TRY(disk(toolstack, domain, vdev));
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    return toolstack.store().write(backend_path(link) + "/caisson-resize", std::to_string(now));
}

}  // namespace caisson::toolstack
