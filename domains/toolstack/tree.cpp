#include "domains/toolstack/tree.h"

#include <fmt/format.h>

#include <chrono>

#include "protocols/xenbus.h"
#include "ring/endpoint.h"

namespace caisson::toolstack {
namespace {

using Permissions = std::vector<StorePermission>;
using Entries = std::vector<std::pair<std::string, std::string>>;

constexpr const char* console_limit = "1048576";  // LIBXL_XENCONSOLE_LIMIT
constexpr std::uint32_t default_mtu = 1500;       // LIBXL_DEVICE_NIC_MTU_DEFAULT

// "n5,r0": the owner, who may do all, and one reader.
Permissions owned(DomainId owner) { return {{.domain = owner}}; }
Permissions owned(DomainId owner, DomainId reader) {
    if (owner == reader) return owned(owner);
    return {{.domain = owner}, {.domain = reader, .read = true}};
}

std::string state_text(XenbusState state) { return std::to_string(static_cast<unsigned>(state)); }

void add_if(Entries& entries, const char* key, const std::string& value) {
    if (!value.empty()) entries.emplace_back(key, value);
}

Entries backend_start(DomainId frontend) {
    return {{"frontend-id", std::to_string(frontend.raw)},
            {"online", "1"},
            {"state", state_text(XenbusState::initialising)}};
}

std::string start_time() {
    using namespace std::chrono;
    const auto now = duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
    return fmt::format("{}.{:02}", now / 1000000, now % 1000000 / 10000);
}

}  // namespace

std::string name_of(const DeviceLink& link) {
    return fmt::format("{} {} of domain {}", link.device_class, link.id.raw, link.frontend.raw);
}

std::string domain_path(DomainId domain) { return fmt::format("/local/domain/{}", domain.raw); }
std::string libxl_path(DomainId domain) { return fmt::format("/libxl/{}", domain.raw); }

// Console 0 is older than the scheme that all other devices follow.
std::string frontend_path(const DeviceLink& link) {
    if (link.device_class == "console" && link.id.raw == 0) return domain_path(link.frontend) + "/console";
    return fmt::format("{}/device/{}/{}", domain_path(link.frontend), link.device_class, link.id.raw);
}

std::string backend_path(const DeviceLink& link) {
    return fmt::format("{}/backend/{}/{}/{}", domain_path(link.backend), link.device_class, link.frontend.raw,
                       link.id.raw);
}

std::string trusted_path(const DeviceLink& link) {
    return fmt::format("{}/device/{}/{}", libxl_path(link.frontend), link.device_class, link.id.raw);
}

Tree domain_tree(const DomainConfig& config, DomainId domain) {
    const std::string dom = domain_path(domain), vm = "/vm/" + config.uuid, libxl = libxl_path(domain);
    const auto ro = owned(control_domain, domain), rw = owned(domain);
    Tree tree{.removed = {dom, vm, libxl}, .nodes = {}};
    const auto add = [&](const std::string& path, std::string value, const Permissions& permissions) {
        tree.nodes.push_back({path, std::move(value), permissions});
    };
    add(dom, "", ro);
    add(vm, "", ro);
    add(libxl, "", owned(control_domain));
    add(dom + "/vm", vm, ro);
    add(dom + "/name", config.name, ro);
    add(vm + "/name", config.name, ro);
    add(vm + "/uuid", config.uuid, ro);
    add(vm + "/start_time", start_time(), ro);
    for (const char* folder : {"/cpu", "/memory", "/device", "/control"}) add(dom + folder, "", ro);
    add(dom + "/control/shutdown", "", rw);
    add(dom + "/control/feature-poweroff", "", rw);
    add(dom + "/control/feature-reboot", "", rw);
    add(dom + "/control/feature-suspend", "", rw);
    add(dom + "/control/sysrq", "", rw);
    add(dom + "/control/platform-feature-multiprocessor-suspend", "1", ro);
    add(dom + "/control/platform-feature-xs_reset_watches", "1", ro);
    add(dom + "/device/suspend/event-channel", "", rw);
    for (const char* folder : {"/data", "/drivers", "/feature", "/attr", "/error"}) add(dom + folder, "", rw);
    if (config.driver_domain) add(dom + "/libxl", "", rw);
    add(dom + "/domid", std::to_string(domain.raw), ro);
    const std::string kib = std::to_string(config.memory_mib * 1024);
    add(dom + "/memory/static-max", kib, ro);
    add(dom + "/memory/target", kib, ro);
    add(dom + "/memory/videoram", "0", ro);
    for (std::uint32_t cpu = 0; cpu < config.vcpus; ++cpu)
        add(fmt::format("{}/cpu/{}/availability", dom, cpu), "online", ro);
    add(libxl + "/type", config.type, owned(control_domain));
    return tree;
}

Tree device_tree(const DeviceLink& link, const DeviceEntries& entries) {
    const std::string front = frontend_path(link), back = backend_path(link), trusted = trusted_path(link);
    const auto rw = owned(link.frontend, link.backend);
    const auto ro = owned(link.backend, link.frontend);
    Tree tree{.removed = {trusted, front, back}, .nodes = {}};
    const auto add = [&](std::string path, std::string value, Permissions permissions = {}) {
        tree.nodes.push_back({std::move(path), std::move(value), std::move(permissions)});
    };
    add(trusted, "", owned(control_domain));
    add(trusted + "/frontend", front);
    add(trusted + "/backend", back);
    for (const auto& [key, value] : entries.back) add(trusted + "/" + key, value);
    add(front, "", rw);
    add(front + "/backend", back);
    for (const auto& [key, value] : entries.front) add(front + "/" + key, value, rw);
    for (const auto& [key, value] : entries.fixed) add(front + "/" + key, value, ro);
    add(back, "", ro);
    add(back + "/frontend", front);
    for (const auto& [key, value] : entries.back) add(back + "/" + key, value);
    return tree;
}

Tree vif_tree(const Vif& vif, DomainId frontend, DomainId backend) {
    const DeviceLink link{.device_class = "vif", .id = DeviceId{vif.id}, .frontend = frontend, .backend = backend};
    DeviceEntries entries{.front = {}, .fixed = {}, .back = backend_start(frontend)};
    add_if(entries.back, "script", vif.script);
    add_if(entries.back, "vifname", vif.vifname);
    add_if(entries.back, "mac", vif.mac);
    add_if(entries.back, "ip", vif.ip);
    add_if(entries.back, "gatewaydev", vif.gatewaydev);
    if (vif.rate_usecs > 0) entries.back.emplace_back("rate", fmt::format("{},{}", vif.rate_bytes, vif.rate_usecs));
    add_if(entries.back, "bridge", vif.bridge);
    if (vif.mtu != default_mtu) entries.back.emplace_back("mtu", std::to_string(vif.mtu));
    entries.back.emplace_back("handle", std::to_string(vif.id));
    entries.back.emplace_back("type", "vif");
    entries.front = {{"backend-id", std::to_string(backend.raw)},
                     {"state", state_text(XenbusState::initialising)},
                     {"handle", std::to_string(vif.id)},
                     {"mac", vif.mac}};
    entries.fixed = {{"trusted", vif.trusted ? "1" : "0"}, {"mtu", std::to_string(vif.mtu)}};
    return device_tree(link, entries);
}

Tree vbd_tree(const Disk& disk, DomainId frontend, DomainId backend) {
    const DeviceLink link{.device_class = "vbd", .id = DeviceId{disk.id}, .frontend = frontend, .backend = backend};
    DeviceEntries entries{.front = {}, .fixed = {}, .back = {}};
    Entries& back = entries.back;
    back.emplace_back("params", disk.target);
    add_if(back, "script", disk.script);
    for (auto& entry : backend_start(frontend)) back.push_back(std::move(entry));
    back.emplace_back("removable", disk.removable ? "1" : "0");
    back.emplace_back("bootable", "1");
    back.emplace_back("dev", disk.vdev);
    back.emplace_back("type", disk.type.empty() ? "phy" : disk.type);
    back.emplace_back("mode", disk.read_only ? "r" : disk.shared ? "w!" : "w");
    back.emplace_back("device-type", disk.cdrom ? "cdrom" : "disk");
    if (disk.direct_io_safe) back.emplace_back("direct-io-safe", "1");
    back.emplace_back("discard-enable", disk.discard.value_or(!disk.read_only) ? "1" : "0");
    add_if(back, "caisson-rate-iops", disk.rate_iops);
    add_if(back, "caisson-rate-bytes", disk.rate_bytes);
    if (disk.sector_size != 0) back.emplace_back("caisson-sector-size", std::to_string(disk.sector_size));
    if (disk.direct_io) back.emplace_back("caisson-direct-io", *disk.direct_io ? "1" : "0");
    if (disk.logical_blocks) back.emplace_back("caisson-sectors-are-blocks", *disk.logical_blocks ? "1" : "0");
    entries.front = {{"backend-id", std::to_string(backend.raw)},
                     {"state", state_text(XenbusState::initialising)},
                     {"virtual-device", std::to_string(disk.id)},
                     {"device-type", disk.cdrom ? "cdrom" : "disk"}};
    if (disk.claimed) entries.front.emplace_back(claimed_key, "1");
    add_if(entries.front, "attachment", disk.attachment);
    entries.fixed = {{"trusted", disk.trusted.value_or(true) ? "1" : "0"}};
    return device_tree(link, entries);
}

Tree console_tree(const Channel* channel, DomainId frontend, DomainId backend, const ConsoleLog* log) {
    const bool first = channel == nullptr;
    const DeviceLink link{
        .device_class = "console", .id = DeviceId{first ? 0 : channel->id}, .frontend = frontend, .backend = backend};
    DeviceEntries entries{.front = {}, .fixed = {}, .back = backend_start(frontend)};
    entries.back.emplace_back("protocol", "vt100");  // LIBXL_XENCONSOLE_PROTOCOL
    entries.front = {{"backend-id", std::to_string(backend.raw)},
                     {"state", state_text(XenbusState::initialising)},
                     {"protocol", "vt100"}};
    entries.fixed = {{"limit", console_limit}, {"type", "xenconsoled"}, {"output", "pty"}, {"tty", ""}};
    if (log != nullptr) {
        entries.back.emplace_back("log", log->file);
        if (log->limit != 0) entries.back.emplace_back("log-limit", std::to_string(log->limit));
        if (log->rate != 0) entries.back.emplace_back("log-rate", std::to_string(log->rate));
        entries.back.emplace_back("log-timestamps", log->timestamps ? "1" : "0");
    }
    if (!first) {
        entries.back.emplace_back("name", channel->name);
        entries.back.emplace_back("connection", channel->connection);
        add_if(entries.back, "path", channel->path);
        entries.fixed.emplace_back("name", channel->name);
    }
    return device_tree(link, entries);
}

Status write_nodes(Store& store, const Tree& tree) {
    for (const auto& path : tree.removed) TRY(store.remove(path));
    for (const auto& [path, value, permissions] : tree.nodes) {
        TRY(store.write(path, value));
        if (!permissions.empty()) TRY(store.set_permissions(path, permissions));
    }
    return {};
}

Status write_tree(Store& store, const Tree& tree) {
    return store.transaction([&] { return write_nodes(store, tree); });
}

}  // namespace caisson::toolstack
