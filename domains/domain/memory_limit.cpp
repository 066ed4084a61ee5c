#include "domains/domain/memory_limit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "ring/kernel_setting.h"

namespace caisson::domain {
namespace {

constexpr const char* machines = "/sys/fs/cgroup";

Status make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return host_fault(errno, "make", path);
    return {};
}

// A folder whose children have a memory.max.
Result<std::string> parent() {
    std::string folder;
    if (const char* delegated = std::getenv("CAISSON_CGROUP"); delegated != nullptr && *delegated != '\0') {
        folder = delegated;
    } else {
        if (::geteuid() != 0) return unsupported("", "no cgroup is delegated to this user (CAISSON_CGROUP)");
        const std::string above = machines;
        if (::access((above + "/cgroup.subtree_control").c_str(), W_OK) != 0)
            return unsupported("", "/sys/fs/cgroup is no cgroup of version 2 that may be written");
        TRY(write_setting(above + "/cgroup.subtree_control", "+memory"));
        folder = above + "/caisson";
        TRY(make_folder(folder));
    }
    TRY(write_setting(folder + "/cgroup.subtree_control", "+memory"));
    return folder;
}

}  // namespace

Result<MemoryLimit> MemoryLimit::set(pid_t init, std::uint64_t mib) {
    // By pid: no two living domains have the same, of whichever state directory.
    const std::string folder = TRY(parent()) + "/domain-" + std::to_string(init);
    TRY(make_folder(folder));
    MemoryLimit limit(folder);
    TRY(write_setting(folder + "/memory.max", std::to_string((mib + overhead_mib) << 20)));
    TRY(write_setting(folder + "/cgroup.procs", std::to_string(init)));
    return limit;
}

MemoryLimit::~MemoryLimit() {
    if (!folder_.empty()) ::rmdir(folder_.c_str());
}

}  // namespace caisson::domain
