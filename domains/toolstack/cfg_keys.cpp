#include "domains/toolstack/cfg_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

namespace caisson::toolstack {
namespace {

// Keys that domain_config.cpp reads.
constexpr auto used = std::to_array<std::string_view>({"name",
                                                       "uuid",
                                                       "type",
                                                       "memory",
                                                       "maxmem",
                                                       "vcpus",
                                                       "driver_domain",
                                                       "on_poweroff",
                                                       "on_reboot",
                                                       "on_crash",
                                                       "vif",
                                                       "channel",
                                                       "disk",
                                                       "caisson_console_backend",
                                                       "caisson_console_log",
                                                       "caisson_run",
                                                       "caisson_net",
                                                       "caisson_nftables",
                                                       "caisson_forward",
                                                       "caisson_disk",
                                                       "caisson_bind",
                                                       "caisson_uplink",
                                                       "caisson_uplink_run"});

// Keys of xl.cfg(5) that mean something to Xen and nothing to a process tree.
constexpr auto not_used_here = std::to_array<std::string_view>({"builder",
                                                                "kernel",
                                                                "ramdisk",
                                                                "extra",
                                                                "root",
                                                                "cmdline",
                                                                "bootloader",
                                                                "bootloader_args",
                                                                "maxvcpus",
                                                                "cpus",
                                                                "cpus_soft",
                                                                "cpu_weight",
                                                                "cap",
                                                                "pool",
                                                                "pvshim",
                                                                "localtime",
                                                                "rtc_timeoffset",
                                                                "on_watchdog",
                                                                "on_soft_reset",
                                                                "boot",
                                                                "hap",
                                                                "pae",
                                                                "acpi",
                                                                "apic",
                                                                "nx",
                                                                "viridian",
                                                                "serial",
                                                                "keymap",
                                                                "vnc",
                                                                "vnclisten",
                                                                "vncdisplay",
                                                                "vncpasswd",
                                                                "vncunused",
                                                                "sdl",
                                                                "spice",
                                                                "nographic",
                                                                "stdvga",
                                                                "vga",
                                                                "videoram",
                                                                "firmware",
                                                                "bios",
                                                                "nestedhvm",
                                                                "altp2m",
                                                                "xen_platform_pci",
                                                                "device_model_version",
                                                                "device_model_override",
                                                                "device_model_args",
                                                                "device_model_stubdomain_override",
                                                                "stubdomain_memory",
                                                                "usb",
                                                                "usbdevice",
                                                                "soundhw",
                                                                "parallel",
                                                                "gfx_passthru",
                                                                "seclabel",
                                                                "init_seclabel",
                                                                "device_tree",
                                                                "passthrough",
                                                                "max_grant_frames",
                                                                "max_maptrack_frames",
                                                                "max_grant_version",
                                                                "max_event_channels",
                                                                "event_channels",
                                                                "nomigrate",
                                                                "timer_mode",
                                                                "tsc_mode",
                                                                "vpt_align",
                                                                "hpet",
                                                                "cpuid",
                                                                "shadow_memory",
                                                                "e820_host",
                                                                "pci_permissive",
                                                                "pci_msitranslate",
                                                                "pci_power_mgmt",
                                                                "pci_seize",
                                                                "iomem",
                                                                "ioports",
                                                                "irqs",
                                                                "claim_mode",
                                                                "vnuma",
                                                                "vuart",
                                                                "suppress_spurious_page_faults",
                                                                "ms_vm_genid",
                                                                "acpi_firmware",
                                                                "smbios_firmware",
                                                                "smbios",
                                                                "seclabel_init",
                                                                "blkdev_start",
                                                                "opengl",
                                                                "vendor_device",
                                                                "dm_restrict",
                                                                "xend_suspend_evtchn_compat",
                                                                "monitor",
                                                                "vmtrace_buf_kb",
                                                                "vpmu",
                                                                "llc_colors",
                                                                "tee",
                                                                "gic_version",
                                                                "hostname"});

// Lists of devices of classes that this version has no backend for: refused unless empty.
constexpr auto not_served = std::to_array<std::string_view>(
    {"usbctrl", "usbdev", "vdispl", "vkb", "vsnd", "vfb", "vtpm", "pci", "p9", "pvcalls", "rdm", "dtdev", "virtio"});

template <std::size_t n>
bool holds(const std::array<std::string_view, n>& keys, std::string_view key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
}

}  // namespace

std::vector<std::string> warnings_about_keys(const CfgFile& file) {
    std::vector<std::string> warnings;
    std::set<std::string> said;
    for (const auto& [key, line] : file.keys()) {
        if (holds(used, key) || holds(not_served, key) || !said.insert(key).second) continue;
        const bool known = holds(not_used_here, key);
        warnings.push_back(file.where(key) + key +
                           (known ? ": a key of xl.cfg that the local hypervisor has no use for" : ": unknown key"));
    }
    return warnings;
}

void refuse_unserved(CfgFile& file) {
    for (const auto key : not_served)
        if (!file.list(key).empty())
            file.problem(key, fmt::format("no backend of this version serves it; remove it, or say '{}=[]'", key));
}

}  // namespace caisson::toolstack
