#include "domains/toolstack/disk_spec.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "domains/toolstack/device_spec.h"
#include "domains/toolstack/xlutil.h"
#include "protocols/block_names.h"
#include "ring/log.h"
#include "ring/store.h"

namespace caisson::toolstack {
namespace {

constexpr std::size_t longest_spec = 4096;  // xenstore takes no longer value

std::unexpected<Error> wrong(std::string text) { return unsupported("", std::move(text)); }

bool printable(std::string_view text) {
    for (const char c : text)
        if (static_cast<unsigned char>(c) < ' ' && c != '\t') return false;
    return true;
}

// ---- libxlutil's parser
// ----------------------------------------------------------------------------------------------

// Its answer, in C's hands: the strings are ours to free.
struct ParsedDisk {
    ParsedDisk() = default;
    ParsedDisk(const ParsedDisk&) = delete;
    ParsedDisk& operator=(const ParsedDisk&) = delete;
    ~ParsedDisk() {
        for (char* text : {disk.backend_domname, disk.pdev_path, disk.vdev, disk.script, disk.colo_host,
                           disk.colo_export, disk.active_disk, disk.hidden_disk})
            std::free(text);
    }
    static std::string text(const char* value) { return value != nullptr ? value : ""; }
    libxl_device_disk disk{};
};

// "config: disk:1: warning: ..." and its like: the last line is the reason.
std::string reason(std::string report) {
    while (report.ends_with('\n')) report.pop_back();
    if (const auto line = report.rfind('\n'); line != report.npos) report.erase(0, line + 1);
    return report.empty() ? "libxlutil does not understand it" : escaped(report);
}

Status parse_by_xl(const std::string& spec, ParsedDisk& parsed) {
    char* bytes = nullptr;
    std::size_t length = 0;
    std::FILE* report = open_memstream(&bytes, &length);
    if (report == nullptr) return host_fault(ENOMEM, "disk");
    XLU_Config* cfg = xlu_cfg_init(report, "disk");
    const char* specs[] = {spec.c_str()};
    const int failed = cfg == nullptr ? ENOMEM : xlu_disk_parse(cfg, 1, specs, &parsed.disk);
    if (cfg != nullptr) xlu_cfg_destroy(cfg);
    std::fclose(report);  // may move `bytes`
    const std::string said(bytes, length);
    std::free(bytes);
    if (failed != 0) return wrong(reason(said));
    return {};
}

std::optional<bool> defined(const libxl_defbool& value) {
    if (value.val == 0) return std::nullopt;  // LIBXL__DEFBOOL_DEFAULT; false is -1, true is 1
    return value.val > 0;
}

// Old syntax: "nbd:..." was taken for a script of that name.
std::string target_of(const libxl_device_disk& disk, std::string& script) {
    std::string target = ParsedDisk::text(disk.pdev_path);
    if (script == "block-nbd") target = "nbd:" + target, script.clear();
    return target;
}

Status check_target(const Disk& disk) {
    const std::string& target = disk.target;
    if (target.empty())
        return wrong("has no target: an empty drive is not served; leave the entry out until there is a medium");
    if (target.starts_with('/') || target.starts_with("memory:") || target.starts_with("null:") ||
        target.starts_with("nbd:"))
        return {};
    // xl would look for it from its own folder; here the file is in another domain.
    return wrong(
        fmt::format("target: '{}' is no absolute path (in the domain '{}', whose file system it is in), and not "
                    "memory:SIZE, null:SIZE or nbd:...",
                    escaped(target), disk.backend == "0" ? "Domain-0" : disk.backend));
}

// ---- caisson_disk --------------------------------------------------------------------------------------------------

Result<bool> flag(const std::string& key, const std::string& value) {
    if (value != "0" && value != "1") return wrong(fmt::format("{}: '{}' is neither 0 nor 1", key, escaped(value)));
    return value == "1";
}

// "1000" or "1000:2000" (a comma separates keys here; xenstore has one).
Result<std::string> rate_and_burst(const std::string& key, const std::string& value) {
    const auto colon = value.find(':');
    const auto rate = parse_decimal<std::uint64_t>(std::string_view(value).substr(0, colon));
    std::optional<std::uint64_t> burst = rate;
    if (colon != value.npos) burst = parse_decimal<std::uint64_t>(std::string_view(value).substr(colon + 1));
    if (!rate || *rate == 0 || !burst || *burst == 0)
        return wrong(fmt::format("{}: '{}' is not like 1000 or 1000:5000 (a second, and how much may be saved up)", key,
                                 escaped(value)));
    return colon == value.npos ? std::to_string(*rate) : fmt::format("{},{}", *rate, *burst);
}

Status set(Disk& disk, const std::string& key, const std::string& value) {
    if (key == "rate-iops")
        disk.rate_iops = TRY(rate_and_burst(key, value));
    else if (key == "rate-bytes")
        disk.rate_bytes = TRY(rate_and_burst(key, value));
    else if (key == "shared")
        disk.shared = TRY(flag(key, value));
    else if (key == "claimed")
        disk.claimed = TRY(flag(key, value));
    else if (key == "attachment" && (value == "nbd" || value == "fuse"))
        disk.attachment = value;
    else if (key == "removable")
        disk.removable = TRY(flag(key, value));
    else if (key == "direct-io")
        disk.direct_io = TRY(flag(key, value));
    else if (key == "sectors-are-blocks")
        disk.logical_blocks = TRY(flag(key, value));
    else if (key == "sector-size" && (value == "512" || value == "4096"))
        disk.sector_size = value == "512" ? 512 : 4096;
    else if (key != "vdev")
        return wrong(fmt::format(
            "'{}={}' is none of vdev=, rate-iops=, rate-bytes=, sector-size=512|4096, shared=0|1, removable=0|1, "
            "direct-io=0|1, sectors-are-blocks=0|1, claimed=0|1, "
            "attachment=nbd|fuse",
            escaped(key), escaped(value)));
    return {};
}

}  // namespace

Result<Disk> parse_disk(std::string_view spec) {
    if (spec.size() > longest_spec) return wrong(fmt::format("{} bytes, at most {}", spec.size(), longest_spec));
    if (!printable(spec)) return wrong("holds a control character");
    ParsedDisk parsed;
    TRY(parse_by_xl(std::string(spec), parsed));
    const libxl_device_disk& found = parsed.disk;
    Disk disk{.vdev = ParsedDisk::text(found.vdev), .script = ParsedDisk::text(found.script)};
    disk.target = target_of(found, disk.script);
    if (const std::string name = ParsedDisk::text(found.backend_domname); !name.empty()) disk.backend = name;
    if (!domain_name_valid(disk.backend) && !parse_decimal<std::uint16_t>(disk.backend))
        return wrong(fmt::format("backend: '{}' is neither a domain's name nor an id", escaped(disk.backend)));
    const auto id = block::virtual_device(disk.vdev);
    if (!id) return wrong(fmt::format("vdev: '{}' is no name like xvda, sda1, hda or d0p0", escaped(disk.vdev)));
    disk.id = *id;
    switch (found.backend) {
        case LIBXL_DISK_BACKEND_PHY: disk.type = "phy"; break;
        case LIBXL_DISK_BACKEND_TAP: disk.type = "tap"; break;
        case LIBXL_DISK_BACKEND_QDISK: disk.type = "qdisk"; break;
        default: break;
    }
    disk.cdrom = found.is_cdrom != 0;
    disk.removable = found.removable != 0;
    disk.read_only = found.readwrite == 0 || disk.cdrom;
    disk.direct_io_safe = found.direct_io_safe;
    disk.discard = defined(found.discard_enable);
    disk.trusted = defined(found.trusted);
    if (found.format != LIBXL_DISK_FORMAT_RAW && found.format != LIBXL_DISK_FORMAT_EMPTY)
        return wrong(
            "format: only raw is served; for an image of another format run 'nbdkit' or 'qemu-nbd' in the "
            "backend's domain and say target=nbd:unix:/SOCKET");
    TRY(check_target(disk));
    return disk;
}

Status refine_disk(std::vector<Disk>& disks, std::string_view spec) {
    const auto pairs = TRY(split_pairs(spec));
    std::string vdev;
    for (const auto& [key, value] : pairs)
        if (key == "vdev") vdev = value;
    const auto id = block::virtual_device(vdev);
    for (Disk& disk : disks) {
        if (disk.id != id) continue;
        for (const auto& [key, value] : pairs) TRY(set(disk, key, value));
        return {};
    }
    return wrong(vdev.empty() ? "needs vdev=, as it is in disk=" : fmt::format("there is no disk '{}'", escaped(vdev)));
}

}  // namespace caisson::toolstack
