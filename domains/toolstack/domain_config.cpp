#include "domains/toolstack/domain_config.h"

#include <fmt/format.h>
#include <limits.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include "domains/toolstack/cfg_keys.h"
#include "domains/toolstack/neighbours.h"
#include "ring/log.h"

namespace caisson::toolstack {
namespace {

constexpr std::size_t most_devices = 64;  // of one class
constexpr std::size_t longest_rules = 1 << 20;

std::string random_uuid() {
    std::array<std::uint8_t, 16> b{};
    if (::getrandom(b.data(), b.size(), 0) != static_cast<ssize_t>(b.size())) b[0] = 1;
    b[6] = static_cast<std::uint8_t>((b[6] & 0x0F) | 0x40);
    b[8] = static_cast<std::uint8_t>((b[8] & 0x3F) | 0x80);
    std::string text;
    for (std::size_t i = 0; i < b.size(); ++i)
        text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
    return text;
}

bool uuid_valid(std::string_view text) {
    bool good = text.size() == 36;
    for (std::size_t i = 0; good && i < text.size(); ++i) {
        const char c = text[i];
        const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        good = i == 8 || i == 13 || i == 18 || i == 23 ? c == '-' : hex;
    }
    return good;
}

void identity(CfgFile& file, DomainConfig& config) {
    config.name = file.text("name").value_or("");
    if (!domain_name_valid(config.name))
        file.problem("name", config.name.empty()
                                 ? "a domain needs one"
                                 : "'" + escaped(config.name) +
                                       "' is no name: 1 to 63 letters, digits, '-', '_', '.', '+', not only digits");
    const auto uuid = file.text("uuid");
    if (uuid && !uuid_valid(*uuid)) file.problem("uuid", "'" + escaped(*uuid) + "' is no UUID");
    config.uuid = uuid.value_or(random_uuid());
    config.type = file.one_of("type", {"pv", "pvh", "hvm"}).value_or("pv");
}

void limits(CfgFile& file, DomainConfig& config) {
    config.memory_mib = static_cast<std::uint64_t>(file.number("memory", 1, 1 << 24).value_or(128));
    config.maxmem_mib = static_cast<std::uint64_t>(file.number("maxmem", 1, 1 << 24).value_or(0));
    if (config.maxmem_mib < config.memory_mib) config.maxmem_mib = config.memory_mib;
    config.vcpus = static_cast<std::uint32_t>(file.number("vcpus", 1, 512).value_or(1));
    config.driver_domain = file.flag("driver_domain").value_or(false);
}

// xl knows more words (rename-restart, coredump-destroy ...): they mean what their first half means here.
OnExit on_exit(CfgFile& file, std::string_view key) {
    const auto word = file.one_of(key, {"destroy", "restart", "rename-restart", "preserve", "coredump-destroy",
                                        "coredump-restart", "soft-reset"});
    return word && word->ends_with("restart") ? OnExit::restart : OnExit::destroy;
}

template <class T>
std::vector<T> devices(CfgFile& file, std::string_view key, Result<T> (*parse)(std::string_view)) {
    std::vector<T> found;
    const auto specs = file.list(key);
    if (specs.size() > most_devices) {
        file.problem(key, fmt::format("{} entries, at most {}", specs.size(), most_devices));
        return found;
    }
    for (std::size_t i = 0; i < specs.size(); ++i) {
        auto device = parse(specs[i]);
        if (device)
            found.push_back(std::move(*device));
        else
            file.problem(key, fmt::format("entry {}: {}", i + 1, device.error().message()));
    }
    return found;
}

std::string entry_of(const CfgFile& file, std::string_view key, std::size_t index) {
    return fmt::format("{}{}: entry {}", file.where(key), key, index + 1);
}

void refuse_twins(CfgFile& file, const std::vector<Vif>& vifs) {
    const auto neighbour = [](const Vif& vif) {
        return Neighbour{.name = {}, .backend = vif.backend, .mac = vif.mac, .ip = vif.ip};
    };
    for (std::size_t i = 0; i < vifs.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
            if (const auto common = in_common(neighbour(vifs[j]), neighbour(vifs[i])); !common.empty())
                file.problem("vif", fmt::format("entries {} and {} {}, on one backend", j + 1, i + 1, common));
}

// The frontend names a vif's interface eth and its device id. Another name may be right, for the guest can make
// interfaces itself, but mostly it is a slip.
void look_for_interfaces(const CfgFile& file, const DomainConfig& config, std::vector<std::string>& warnings) {
    std::string known;
    for (const auto& vif : config.vifs) known += fmt::format("{}eth{}", known.empty() ? "" : ", ", vif.id);
    for (std::size_t i = 0; i < config.interfaces.size(); ++i) {
        const std::string& device = config.interfaces[i].device;
        const auto is = [&](const Vif& vif) { return device == fmt::format("eth{}", vif.id); };
        if (std::none_of(config.vifs.begin(), config.vifs.end(), is))
            warnings.push_back(fmt::format("{}: no vif makes an interface {} ({})", entry_of(file, "caisson_net", i),
                                           device, known.empty() ? "there is no vif" : "the vifs make " + known));
    }
}

void network_devices(CfgFile& file, DomainConfig& config, std::vector<std::string>& warnings) {
    config.vifs = devices<Vif>(file, "vif", parse_vif);
    std::set<std::uint32_t> taken;
    for (const auto& vif : config.vifs) taken.insert(vif.id);
    std::uint32_t next = 0;
    std::set<std::uint32_t> ids;
    for (std::size_t i = 0; i < config.vifs.size(); ++i) {
        Vif& vif = config.vifs[i];
        vif.where = entry_of(file, "vif", i);
        if (vif.id == UINT32_MAX) {
            while (taken.contains(next)) ++next;
            vif.id = next++;
        }
        if (!ids.insert(vif.id).second) file.problem("vif", fmt::format("devid={} is there twice", vif.id));
        if (vif.mac.empty()) vif.mac = random_mac();
        for (const auto& key : vif.unused)
            warnings.push_back(file.where("vif") + "vif: " + escaped(key) + ": the local hypervisor has no use for it");
        if (!vif.script.empty() && vif.script.find("caisson-") == std::string::npos)
            warnings.push_back(file.where("vif") +
                               "vif: script: passed on in xenstore, not run by the local hypervisor");
    }
    refuse_twins(file, config.vifs);
    config.interfaces = devices<Interface>(file, "caisson_net", parse_interface);
    look_for_interfaces(file, config, warnings);
}

void disks(CfgFile& file, DomainConfig& config, std::vector<std::string>& warnings) {
    config.disks = devices<Disk>(file, "disk", parse_disk);
    std::set<std::uint32_t> ids;
    for (std::size_t i = 0; i < config.disks.size(); ++i) {
        Disk& disk = config.disks[i];
        disk.where = entry_of(file, "disk", i);
        if (!ids.insert(disk.id).second) file.problem("disk", fmt::format("{} is there twice", escaped(disk.vdev)));
        if (!disk.script.empty())
            warnings.push_back(file.where("disk") +
                               "disk: script: passed on in xenstore, not run by the local hypervisor");
    }
    const auto more = file.list("caisson_disk");
    for (std::size_t i = 0; i < more.size(); ++i)
        if (const Status refined = refine_disk(config.disks, more[i]); !refined)
            file.problem("caisson_disk", fmt::format("entry {}: {}", i + 1, refined.error().message()));
}

// Paths of the machine that the domain may write: where a storage domain has its images.
void binds(CfgFile& file, DomainConfig& config) {
    config.binds = file.list("caisson_bind");
    if (config.binds.size() > most_devices)
        file.problem("caisson_bind", fmt::format("{} entries, at most {}", config.binds.size(), most_devices));
    for (const auto& path : config.binds) {
        const bool plain = path.size() > 1 && path.starts_with('/') && path.size() < PATH_MAX &&
                           path.find("/../") == path.npos && !path.ends_with("/..") && path.find("//") == path.npos;
        if (!plain)
            file.problem("caisson_bind",
                         fmt::format("'{}' is no absolute path of a folder, a file or a device", escaped(path)));
    }
}

void consoles(CfgFile& file, DomainConfig& config) {
    config.channels = devices<Channel>(file, "channel", parse_channel);
    for (std::size_t i = 0; i < config.channels.size(); ++i) {
        config.channels[i].id = static_cast<std::uint32_t>(i + 1);
        config.channels[i].where = entry_of(file, "channel", i);
    }
    config.console_where = file.where("caisson_console_backend") + "caisson_console_backend";
    config.console_backend = file.text("caisson_console_backend").value_or("0");
    if (!domain_name_valid(config.console_backend) && config.console_backend != "0")
        file.problem("caisson_console_backend", "'" + escaped(config.console_backend) + "' is no domain's name");
    if (const auto spec = file.text("caisson_console_log")) {
        auto log = parse_console_log(*spec);
        if (log)
            config.console_log = std::move(*log);
        else
            file.problem("caisson_console_log", log.error().message());
    }
}

// A rules file is named relative to the cfg file; its text goes into the domain, its name does not.
std::string rules(CfgFile& file) {
    const auto named = file.text("caisson_nftables");
    if (!named || named->empty()) return {};
    const auto slash = file.name().rfind('/');
    const std::string path =
        named->front() == '/' || slash == std::string::npos ? *named : file.name().substr(0, slash + 1) + *named;
    std::ifstream in(path, std::ios::binary);
    std::string text(longest_rules + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    if (text.empty() || text.size() > longest_rules)
        file.problem("caisson_nftables", fmt::format("'{}' cannot be read, is empty, or has more than {} bytes",
                                                     escaped(path), longest_rules));
    return text;
}

void inside(CfgFile& file, DomainConfig& config) {
    config.run = file.text("caisson_run").value_or("");
    config.nftables = rules(file);
    config.forward = file.flag("caisson_forward").value_or(false);
    if (const auto spec = file.text("caisson_uplink")) {
        auto uplink = parse_uplink(*spec);
        if (uplink)
            config.uplink = std::move(*uplink);
        else
            file.problem("caisson_uplink", uplink.error().message());
        config.uplink.where = file.where("caisson_uplink") + "caisson_uplink";
    }
    config.uplink_run = file.text("caisson_uplink_run").value_or("");
    if (!config.uplink_run.empty() && config.uplink.kind != Uplink::Kind::sandbox)
        file.problem("caisson_uplink_run", "only an uplink of the kind sandbox has somewhere to run it");
}

}  // namespace

Result<ParsedConfig> parse_domain(CfgFile& file) {
    ParsedConfig parsed{.config = {}, .warnings = warnings_about_keys(file)};
    DomainConfig& config = parsed.config;
    identity(file, config);
    limits(file, config);
    config.on_poweroff = on_exit(file, "on_poweroff");
    (void)on_exit(file, "on_reboot");
    config.on_crash = on_exit(file, "on_crash");
    refuse_unserved(file);
    network_devices(file, config, parsed.warnings);
    disks(file, config, parsed.warnings);
    binds(file, config);
    consoles(file, config);
    inside(file, config);
    if (file.problems().empty()) return parsed;
    std::string all;
    for (const auto& problem : file.problems()) all += (all.empty() ? "" : "\n") + problem;
    return unsupported("", all);
}

}  // namespace caisson::toolstack
