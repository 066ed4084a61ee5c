#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>

#include "frontends/block/disk.h"
#include "protocols/xenbus.h"
#include "ring/endpoint.h"
#include "ring/fd.h"
#include "ring/local/port.h"
#include "ring/xen/port.h"

namespace caisson::block {

namespace {

// docs/man/xen-vbd-interface.7
constexpr std::uint32_t xvd_major = 202, sd_major = 8, extended = 1u << 28;
constexpr std::uint32_t ide_majors[] = {3, 22};

std::optional<DeviceId> xvd(std::uint32_t disk, std::uint32_t partition) {
    if (disk < 16 && partition < 16) return DeviceId(xvd_major << 8 | disk << 4 | partition);
    if (disk < (1u << 20) && partition < 256) return DeviceId(extended | disk << 8 | partition);
    return std::nullopt;
}

// "a" to "zz..." as 0 ...; takes the letters off.
std::optional<std::uint32_t> letters(std::string_view& text) {
    std::uint32_t value = 0;
    std::size_t used = 0;
    for (; used < text.size() && text[used] >= 'a' && text[used] <= 'z'; ++used) {
        if (used == 4) return std::nullopt;
        value = value * 26 + static_cast<std::uint32_t>(text[used] - 'a') + 1;
    }
    text.remove_prefix(used);
    if (used == 0) return std::nullopt;
    return value - 1;
}

std::optional<std::uint32_t> partition_of(std::string_view text) {
    return text.empty() ? std::optional(0u) : parse_decimal<std::uint32_t>(text);
}

// Two data paths of one device would take each other's rings away. The name is the domain's (abstract names belong to
// its network) and goes with the program, however it ends.
Result<Fd> only_one(DomainId self, DeviceId device, std::string_view name) {
    Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket) return host_fault(errno, "socket");
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    const std::string text =
        "caisson " + std::to_string(self.raw) + " " + std::string(device_class) + " " + std::to_string(device.raw);
    text.copy(address.sun_path + 1, sizeof address.sun_path - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0)
        return errno == EADDRINUSE ? host_fault(EBUSY, "another program has the disk", std::string(name))
                                   : host_fault(errno, "bind");
    return socket;
}

Status claim(Store& store, DeviceId device, std::string_view name) {
    const std::string own = "device/" + std::string(device_class) + "/" + std::to_string(device.raw);
    const auto claimed = TRY(store.read(own + "/" + claimed_key));
    if (claimed) return {};
    const auto text = TRY(store.read(own + "/state"));
    if (!text) return host_fault(ENODEV, "no such disk", std::string(name));
    const XenbusState state = parse_xenbus_state(*text);
    if (state == XenbusState::initialised || state == XenbusState::connected)
        return host_fault(EBUSY, "the domain's own frontend serves the disk (claimed=1 leaves it to programs)",
                          std::string(name));
    return store.write(own + "/" + claimed_key, "1");
}

}  // namespace

std::optional<DeviceId> device_named(std::string_view name) {
    if (const auto number = parse_decimal<std::uint32_t>(name)) return DeviceId(*number);
    const bool virtual_disk = name.starts_with("xvd"), scsi = name.starts_with("sd"), ide = name.starts_with("hd");
    if (virtual_disk || scsi || ide) {
        name.remove_prefix(virtual_disk ? 3 : 2);
        const auto disk = letters(name);
        const auto partition = partition_of(name);
        if (!disk || !partition) return std::nullopt;
        if (virtual_disk) return xvd(*disk, *partition);
        if (scsi && *disk < 16 && *partition < 16) return DeviceId(sd_major << 8 | *disk << 4 | *partition);
        if (ide && *disk < 4 && *partition < 64)
            return DeviceId(ide_majors[*disk / 2] << 8 | *disk % 2 << 6 | *partition);
        return std::nullopt;
    }
    if (!name.starts_with("d")) return std::nullopt;
    name.remove_prefix(1);
    const std::size_t p = name.find('p');
    const auto disk = parse_decimal<std::uint32_t>(name.substr(0, p));
    const auto partition = p == name.npos ? std::optional(0u) : parse_decimal<std::uint32_t>(name.substr(p + 1));
    return disk && partition ? xvd(*disk, *partition) : std::nullopt;
}

Result<OpenDisk> open_disk(std::string_view name, Disk::Options options) {
    const auto device = device_named(name);
    if (!device) return host_fault(EINVAL, "no disk is called", std::string(name));
    options.device = *device;
    const char* named = std::getenv("CAISSON_HYPERVISOR");
    const std::string socket = named != nullptr && *named != '\0' ? named : "/run/caisson/hypervisor";
    OpenDisk opened;
    auto port = local::open(socket);
    if (!port && xen::present()) port = xen::open();
    opened.hypervisor = TRY(std::move(port));
    const char* xenstored = std::getenv("XENSTORED_PATH");
    opened.store = std::make_unique<Store>(TRY(Store::open(xenstored != nullptr ? xenstored : "")));
    opened.loop = TRY(Loop::make());
    opened.alone = TRY(only_one(opened.hypervisor->self(), *device, name));
    TRY(claim(*opened.store, *device, name));
    opened.disk = TRY(Disk::open(*opened.hypervisor, *opened.store, *opened.loop, options));
    return opened;
}

}  // namespace caisson::block
