#include "domains/service_vm/kernel.h"

#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ring/kernel_setting.h"
#include "ring/text_file.h"

namespace caisson::service_vm {
namespace {

struct FileSystem {
    const char *type, *folder;
    unsigned long flags;
    const char* options;
};
constexpr unsigned long quiet = MS_NOSUID | MS_NOEXEC;
constexpr FileSystem file_systems[] = {{"proc", "/proc", quiet | MS_NODEV, ""},
                                       {"sysfs", "/sys", quiet | MS_NODEV, ""},
                                       {"devtmpfs", "/dev", quiet, "mode=0755"},
                                       {"tmpfs", "/run", quiet | MS_NODEV, "mode=0755"},
                                       {"tmpfs", "/tmp", quiet | MS_NODEV, "mode=0700"}};

Status load(const Module& module) {
    const std::string file = "/modules/" + module.name + ".ko";
    const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return host_fault(errno, "open", file);
    if (::syscall(SYS_finit_module, fd.get(), module.parameters.c_str(), 0) != 0 && errno != EEXIST && errno != ENODEV)
        return host_fault(errno, "module", module.name);
    return {};
}

// The number after `name` in /proc/meminfo.
std::uint64_t figure(std::string_view text, std::string_view name) {
    auto at = text.find(name);
    if (at == std::string_view::npos) return 0;
    text.remove_prefix(at + name.size());
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    return parse_decimal<std::uint64_t>(text.substr(0, text.find(' '))).value_or(0);
}

}  // namespace

Status mount_file_systems() {
    for (const auto& one : file_systems) {
        ::mkdir(one.folder, 0755);
        if (::mount(one.type, one.folder, one.type, one.flags, one.options) != 0)
            return host_fault(errno, "mount of", one.folder);
    }
    ::mkdir("/run/caisson", 0755);
    ::mkdir("/run/caisson/stats", 0755);
    return {};
}

Status load_modules(const Recipe& recipe) {
    Status all;
    for (const auto& module : recipe.modules)
        if (Status one = load(module); !one && all) all = std::move(one);  // the rest may do without it
    for (const auto& module : recipe.modules) ::unlink(("/modules/" + module.name + ".ko").c_str());
    return all;
}

void close_kernel() {
    (void)write_setting("/proc/sys/kernel/modules_disabled", "1");
    (void)write_setting("/proc/sys/kernel/kexec_load_disabled", "1");
}

std::uint64_t memory_in_use() {
    const auto text = read_text("/proc/meminfo");
    if (!text) return 0;
    const std::uint64_t all = figure(*text, "MemTotal:"), available = figure(*text, "MemAvailable:");
    return all > available ? all - available : 0;
}

void end_machine(End how) {
    ::sync();
    ::reboot(how == End::power_off ? RB_POWER_OFF : RB_AUTOBOOT);
    ::_exit(1);  // not PID 1 of a machine, then
}

}  // namespace caisson::service_vm
