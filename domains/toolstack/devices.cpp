#include "domains/toolstack/devices.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "ring/log.h"

namespace caisson::toolstack {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto look_again = std::chrono::milliseconds(10);
constexpr std::size_t longest_reason = 400;

// "/local/domain/7/backend/..." to 7. Dom0 wrote it, yet it is parsed as strictly as anything.
std::optional<DomainId> domain_of(std::string_view path) {
    constexpr std::string_view start = "/local/domain/";
    if (!path.starts_with(start)) return std::nullopt;
    path.remove_prefix(start.size());
    const auto number = parse_decimal<std::uint16_t>(path.substr(0, path.find('/')));
    if (!number) return std::nullopt;
    return DomainId{*number};
}

// "ERRNO TEXT", as Linux's xenbus_dev_error() writes it.
Result<std::optional<std::string>> error_of(Store& store, const DeviceLink& link) {
    return store.read(fmt::format("{}/error/backend/{}/{}/{}/error", domain_path(link.backend), link.device_class,
                                  link.frontend.raw, link.id.raw));
}

Result<bool> exists(Store& store, const std::string& path) {
    const auto value = TRY(store.read(path));
    return value.has_value();
}

// Removes the folders above `path` that are empty, up to (not including) `top`. In a transaction, for another device
// may be on its way into one of them; without insisting, for an empty folder is no harm.
void prune(Store& store, const std::string& path, const std::string& top) {
    (void)store.transaction([&]() -> Status {
        std::string folder = path;
        for (folder.resize(folder.rfind('/')); folder.size() > top.size(); folder.resize(folder.rfind('/'))) {
            const bool there = TRY(exists(store, folder));
            if (!there) continue;
            const auto inside = TRY(store.list(folder));
            if (!inside.empty()) return {};
            TRY(store.remove(folder));
        }
        return {};
    });
}

Status remove_device(Store& store, const DeviceLink& link) {
    TRY(store.remove(backend_path(link)));
    prune(store, backend_path(link), domain_path(link.backend));
    TRY(store.remove(frontend_path(link)));
    return store.remove(trusted_path(link));
}

}  // namespace

Result<std::vector<DeviceLink>> devices_of(Store& store, DomainId domain) {
    std::vector<DeviceLink> found;
    const std::string top = libxl_path(domain) + "/device";
    const auto classes = TRY(store.list(top));
    for (const auto& device_class : classes) {
        const auto names = TRY(store.list(top + "/" + device_class));
        for (const auto& name : names) {
            const auto id = parse_decimal<std::uint32_t>(name);
            const auto path = TRY(store.read(top + "/" + device_class + "/" + name + "/backend"));
            const auto backend = path ? domain_of(*path) : std::nullopt;
            if (id && backend)
                found.push_back(
                    {.device_class = device_class, .id = DeviceId{*id}, .frontend = domain, .backend = *backend});
        }
    }
    return found;
}

Result<DeviceStates> states(Store& store, const DeviceLink& link) {
    const auto front = TRY(store.read(frontend_path(link) + "/state"));
    const auto back = TRY(store.read(backend_path(link) + "/state"));
    return DeviceStates{.frontend = parse_xenbus_state(front.value_or("")),
                        .backend = parse_xenbus_state(back.value_or(""))};
}

// No transaction: a backend that writes all the time could make every one of them fail (XSA-206). One that vanishes
// meanwhile leaves a stump that remove_device() takes away.
Status ask_to_close(Store& store, const DeviceLink& link) {
    const std::string back = backend_path(link);
    const auto state = TRY(store.read(back + "/state"));
    if (!state) return {};
    TRY(store.write(back + "/online", "0"));
    if (parse_xenbus_state(*state) == XenbusState::closed) return {};
    return store.write(back + "/state", std::to_string(static_cast<unsigned>(XenbusState::closing)));
}

Result<bool> closed(Store& store, const DeviceLink& link) {
    const auto state = TRY(store.read(backend_path(link) + "/state"));
    return !state || parse_xenbus_state(*state) == XenbusState::closed;
}

Status detach_all(Store& store, const std::vector<DeviceLink>& devices, std::chrono::milliseconds patience) {
    const auto end = Clock::now() + patience;
    for (const auto& link : devices) TRY(ask_to_close(store, link));
    for (const auto& link : devices)
        while (Clock::now() < end) {
            const bool done = TRY(closed(store, link));
            if (done) break;
            std::this_thread::sleep_for(look_again);
        }
    for (const auto& link : devices) TRY(remove_device(store, link));
    return {};
}

Result<bool> detach(Store& store, const DeviceLink& link, std::chrono::milliseconds patience, bool force) {
    const auto end = Clock::now() + patience;
    TRY(ask_to_close(store, link));
    while (true) {
        const bool done = TRY(closed(store, link));
        if (done || (force && Clock::now() >= end)) break;
        if (Clock::now() >= end) return false;
        std::this_thread::sleep_for(look_again);
    }
    TRY(remove_device(store, link));
    return true;
}

Status remove_domain(Store& store, DomainId domain, const std::string& uuid, std::chrono::milliseconds patience) {
    const auto devices = TRY(devices_of(store, domain));
    TRY(detach_all(store, devices, patience));
    return store.transaction([&]() -> Status {
        TRY(store.remove(domain_path(domain)));
        if (!uuid.empty()) TRY(store.remove("/vm/" + uuid));
        return store.remove(libxl_path(domain));
    });
}

bool is_refused(Store& store, const DeviceLink& link, const DeviceStates& now) {
    if (now.backend != XenbusState::closing && now.backend != XenbusState::closed) return false;
    const auto said = error_of(store, link);
    return said && *said;
}

std::string why_not_connected(Store& store, const DeviceLink& link) {
    const auto said = error_of(store, link);
    if (!said || !*said) return "'caisson log' of it and of its backend domain may say why";
    const std::string text = escaped(std::string_view(**said).substr(0, longest_reason));
    const auto digits = text.find_first_not_of("0123456789");
    return digits != std::string::npos && digits > 0 && text[digits] == ' ' ? text.substr(digits + 1) : text;
}

}  // namespace caisson::toolstack
