#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>

#include "frontends/block/disk.h"
#include "protocols/xenbus.h"
#include "ring/endpoint.h"
#include "ring/fd.h"
#include "ring/port.h"

namespace caisson::block {

namespace {

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

Result<OpenDisk> open_disk(std::string_view name, Disk::Options options) {
    const auto device = device_named(name);
    if (!device) return host_fault(EINVAL, "no disk is called", std::string(name));
    options.device = *device;
    OpenDisk opened;
    opened.hypervisor = TRY(open_hypervisor(find_hypervisor()));
    const char* xenstored = std::getenv("XENSTORED_PATH");
    opened.store = std::make_unique<Store>(TRY(Store::open(xenstored != nullptr ? xenstored : "")));
    opened.loop = TRY(Loop::make());
    opened.alone = TRY(only_one(opened.hypervisor->self(), *device, name));
    TRY(claim(*opened.store, *device, name));
    opened.disk = TRY(Disk::open(*opened.hypervisor, *opened.store, *opened.loop, options));
    return opened;
}

}  // namespace caisson::block
