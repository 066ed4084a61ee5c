#include "domains/toolstack/move.h"

#include <algorithm>
#include <array>

#include "domains/toolstack/devices.h"
#include "protocols/xenbus.h"
#include "ring/endpoint.h"

namespace caisson::toolstack {
namespace {

// What the toolstack has written into a frontend's directory, beside `backend`, `backend-id` and `state`: owned by the
// guest, or by the backend (XSA-57).
struct FrontendKeys {
    const char* device_class;
    std::vector<std::string> owned, fixed;
};
const std::array<FrontendKeys, 3> known = {{
    {"vif", {"handle", "mac"}, {"trusted", "mtu"}},
    {"vbd", {"virtual-device", "device-type", claimed_key, "attachment"}, {"trusted"}},
    {"console", {"protocol"}, {"limit", "type", "output", "tty", "name"}},
}};

// Below Dom0's copy of a device, while the device is away: what the frontend's directory held of the toolstack's.
constexpr const char* kept = "/caisson-kept";

Result<const FrontendKeys*> keys_of(const DeviceLink& link) {
    const auto keys =
        std::ranges::find_if(known, [&](const auto& one) { return one.device_class == link.device_class; });
    if (keys != known.end()) return &*keys;
    return unsupported("", "a " + link.device_class + " cannot be moved to another backend: only vif, vbd, console");
}

// Within a transaction. What the device was, with another backend.
Result<DeviceEntries> entries_of(Store& store, const DeviceLink& link, DomainId to, const FrontendKeys& keys) {
    const std::string front = frontend_path(link), trusted = trusted_path(link);
    DeviceEntries entries;
    const auto keep = [&](const std::vector<std::string>& names, auto& into) -> Status {
        for (const auto& name : names) {
            auto value = TRY(store.read(trusted + kept + "/" + name));
            if (!value) value = TRY(store.read(front + "/" + name));
            if (value) into.emplace_back(name, *value);
        }
        return {};
    };
    entries.front = {{"backend-id", std::to_string(to.raw)},
                     {"state", std::to_string(static_cast<unsigned>(XenbusState::initialising))}};
    TRY(keep(keys.owned, entries.front));
    TRY(keep(keys.fixed, entries.fixed));
    const auto names = TRY(store.list(trusted));
    for (const auto& name : names) {
        if (name == "frontend" || name == "backend" || "/" + name == kept) continue;
        if (const auto value = TRY(store.read(trusted + "/" + name)); value) entries.back.emplace_back(name, *value);
    }
    return entries;
}

Status move_now(Store& store, const DeviceLink& link, DomainId to, const FrontendKeys& keys) {
    const bool there = TRY(store.read(trusted_path(link))).has_value();
    if (!there) return {};  // the guest is gone
    const auto entries = TRY(entries_of(store, link, to, keys));
    DeviceLink moved = link;
    moved.backend = to;
    return write_nodes(store, device_tree(moved, entries));
}

}  // namespace

Result<std::vector<DeviceLink>> served_by(Store& store, DomainId backend) {
    std::vector<DeviceLink> served;
    const auto domains = TRY(store.list("/libxl"));
    for (const auto& name : domains) {
        const auto id = parse_decimal<std::uint16_t>(name);
        if (!id) continue;
        const auto devices = TRY(devices_of(store, DomainId{*id}));
        for (const auto& link : devices)
            if (link.backend == backend) served.push_back(link);
    }
    return served;
}

Result<bool> follows(Store& store, const DeviceLink& link) {
    const auto said = TRY(store.read(frontend_path(link) + "/" + follows_key));
    return said && *said == "1";
}

Status move_device(Store& store, const DeviceLink& link, DomainId to) {
    const FrontendKeys* keys = TRY(keys_of(link));
    return store.transaction([&] { return move_now(store, link, to, *keys); });
}

Status take_away(Store& store, const DeviceLink& link) {
    const FrontendKeys* keys = TRY(keys_of(link));
    return store.transaction([&]() -> Status {
        for (const auto* names : {&keys->owned, &keys->fixed})
            for (const auto& name : *names)
                if (const auto value = TRY(store.read(frontend_path(link) + "/" + name)); value)
                    TRY(store.write(trusted_path(link) + kept + "/" + name, *value));
        TRY(store.remove(backend_path(link)));
        return store.remove(frontend_path(link));
    });
}

}  // namespace caisson::toolstack
