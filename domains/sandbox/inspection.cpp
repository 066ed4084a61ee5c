#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <memory>

#include "domains/sandbox/sandbox.h"

namespace caisson {
namespace {

struct CloseDirectory {
    void operator()(DIR* directory) const { ::closedir(directory); }
};

Result<std::string> read_all(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return host_fault(errno, "open", path);
    std::string text(8192, '\0');
    const auto length = ::read(file.get(), text.data(), text.size());
    if (length < 0) return host_fault(errno, "read", path);
    text.resize(static_cast<std::size_t>(length));
    return text;
}

// The number after "name:" in /proc/PID/status.
std::uint64_t field(std::string_view status, std::string_view name, int base) {
    const auto at = status.find("\n" + std::string(name) + ":");
    if (at == std::string_view::npos) return ~std::uint64_t{0};
    auto rest = status.substr(at + name.size() + 2);
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    std::uint64_t value = ~std::uint64_t{0};
    std::from_chars(rest.data(), rest.data() + rest.size(), value, base);
    return value;
}

Result<std::string> link(const std::string& path) {
    char target[PATH_MAX];
    const auto length = ::readlink(path.c_str(), target, sizeof target);
    if (length < 0) return host_fault(errno, "readlink", path);
    return std::string(target, static_cast<std::size_t>(length));
}

}  // namespace

Result<Inspection> inspect(pid_t pid) {
    const std::string process = "/proc/" + std::to_string(pid) + "/";
    const std::string status = TRY(read_all(process + "status"));
    Inspection seen{.seccomp = static_cast<int>(field(status, "Seccomp", 10)),
                    .no_new_privileges = field(status, "NoNewPrivs", 10) == 1,
                    .effective = field(status, "CapEff", 16),
                    .permitted = field(status, "CapPrm", 16),
                    .inheritable = field(status, "CapInh", 16),
                    .bounding = field(status, "CapBnd", 16),
                    .ambient = field(status, "CapAmb", 16),
                    .descriptors = {},
                    .own_namespaces = 0};
    for (const char* kind : {"user", "pid", "net", "ipc", "mnt", "uts", "cgroup"})
        seen.own_namespaces += TRY(link(process + "ns/" + kind)) != TRY(link(std::string("/proc/self/ns/") + kind));

    const std::unique_ptr<DIR, CloseDirectory> directory(::opendir((process + "fd").c_str()));
    if (!directory) return host_fault(errno, "open", process + "fd");
    while (const dirent* entry = ::readdir(directory.get())) {
        if (entry->d_name[0] == '.') continue;
        std::string target = TRY(link(process + "fd/" + entry->d_name));
        if (const auto number = target.find(":["); number != std::string::npos && target[0] != 'a')
            target.resize(number);
        seen.descriptors.push_back(std::move(target));
    }
    std::ranges::sort(seen.descriptors);
    return seen;
}

Status verify(const Inspection& seen, bool namespaces, bool xen) {
    const auto refuse = [](const char* what, std::string detail = {}) -> Status {
        return std::unexpected(Error{.fault = Fault::host, .err = 0, .what = what, .detail = std::move(detail)});
    };
    if (seen.seccomp != 2 && !sanitized) return refuse("the worker has no seccomp filter");
    if (!seen.no_new_privileges) return refuse("the worker may gain privileges");
    // Without CAP_SETPCAP a bounding set cannot be emptied; no_new_privs makes what is left of it worthless.
    if ((seen.effective | seen.permitted | seen.inheritable | seen.ambient) != 0 || (namespaces && seen.bounding != 0))
        return refuse("the worker has capabilities");
    if (namespaces && seen.own_namespaces != all_namespaces) return refuse("the worker shares a namespace with us");
    std::vector<std::string> declared{"/dev/null", "/dev/null", "anon_inode:[eventfd]", "anon_inode:[io_uring]",
                                      "pipe",      "socket"};
    if (xen) declared.insert(declared.begin() + 2, "/dev/xen/gntdev");
    if (seen.descriptors != declared) {
        std::string list;
        for (const std::string& one : seen.descriptors) list += (list.empty() ? "" : ", ") + one;
        return refuse("the worker has descriptors that were not declared:", list);
    }
    return {};
}

}  // namespace caisson
