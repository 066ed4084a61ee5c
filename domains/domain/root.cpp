#include "domains/domain/root.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "domains/domain/birth.h"
#include "ring/fd.h"

namespace caisson::domain {
namespace {

constexpr const char* scaffold = "/tmp";  // covered by a tmpfs of ours while we build
constexpr const char* root = "/tmp/root";
constexpr unsigned long quiet = MS_NOSUID | MS_NODEV;

Status failed(const char* what, std::string path) { return host_fault(errno, what, std::move(path)); }

bool folder(const std::string& path) {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

Status mount_at(const char* source, const std::string& target, const char* type, unsigned long flags,
                const std::string& options) {
    if (::mount(source, target.c_str(), type, flags, options.c_str()) != 0) return failed("mount", target);
    return {};
}

Status make_folder(const std::string& path, mode_t mode = 0755) {
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return failed("mkdir", path);
    return {};
}

// A single file or node of the old root, seen at `target` of the new one.
Status bind_file(const std::string& source, const std::string& target) {
    const Fd made(::open(target.c_str(), O_CREAT | O_CLOEXEC | O_WRONLY, 0644));
    if (!made) return failed("create", target);
    if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) return failed("bind", source);
    return {};
}

Status make_read_only(const char* path, unsigned flags) {
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
    if (::syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &attributes, sizeof attributes) != 0)
        return failed("make read-only", path);
    return {};
}

// The machine's tree, every mount of it read-only. MS_REC is not a choice: the kernel does not let a user namespace
// uncover what a mount hides.
Status bind_machine() {
    TRY(mount_at("none", "/", nullptr, MS_REC | MS_PRIVATE, ""));
    TRY(mount_at("tmpfs", scaffold, "tmpfs", quiet, "mode=0700"));
    TRY(make_folder(root));
    TRY(mount_at("/", root, nullptr, MS_BIND | MS_REC, ""));
    return make_read_only(root, AT_RECURSIVE);
}

std::string size_option(std::uint64_t mib) { return "size=" + std::to_string(mib) + "m"; }

Status cover_folders(const RootOptions& options) {
    const std::string size = size_option(options.memory_mib);
    constexpr const char* folders[][2] = {
        {"/home", "0755"}, {"/root", "0700"}, {"/run", "0755"}, {"/tmp", "1777"}, {"/var/tmp", "1777"}};
    for (const auto& [path, mode] : folders)
        if (folder(std::string(root) + path))
            TRY(mount_at("tmpfs", std::string(root) + path, "tmpfs", quiet, size + ",nr_inodes=65536,mode=" + mode));
    for (const auto& path : options.hidden)
        if (folder(root + path)) TRY(mount_at("tmpfs", root + path, "tmpfs", quiet | MS_RDONLY, "size=4k,mode=0"));
    return {};
}

Status make_dev() {
    const std::string dev = std::string(root) + "/dev";
    TRY(mount_at("tmpfs", dev, "tmpfs", MS_NOSUID, "size=1m,mode=0755"));
    for (const char* name : {"null", "zero", "full", "random", "urandom", "tty"})
        TRY(bind_file(std::string("/dev/") + name, dev + "/" + name));
    TRY(make_folder(dev + "/net"));
    if (::access("/dev/net/tun", F_OK) == 0) TRY(bind_file("/dev/net/tun", dev + "/net/tun"));
    if (::access("/dev/fuse", F_OK) == 0) TRY(bind_file("/dev/fuse", dev + "/fuse"));  // a guest's disks are files
    TRY(make_folder(dev + "/shm", 01777));
    TRY(make_folder(dev + "/pts"));
    TRY(mount_at("devpts", dev + "/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
    constexpr const char* links[][2] = {{"pts/ptmx", "/ptmx"},
                                        {"/proc/self/fd", "/fd"},
                                        {"/proc/self/fd/0", "/stdin"},
                                        {"/proc/self/fd/1", "/stdout"},
                                        {"/proc/self/fd/2", "/stderr"}};
    for (const auto& [target, name] : links)
        if (::symlink(target, (dev + name).c_str()) != 0) return failed("symlink", name);
    return {};
}

// Opened while the machine's tree is still whole, bound when ours covers it.
struct Bind {
    std::string path;
    Fd source;
};

Result<std::vector<Bind>> open_binds(const std::vector<std::string>& paths) {
    std::vector<Bind> all;
    for (const auto& path : paths) {
        Fd source(::open(path.c_str(), O_PATH | O_CLOEXEC));
        if (!source) return host_fault(errno, "caisson_bind of", path);
        all.push_back({path, std::move(source)});
    }
    return all;
}

Status make_folders_above(const std::string& path) {
    for (std::size_t at = path.find('/', 1); at != path.npos; at = path.find('/', at + 1))
        if (const std::string above = root + path.substr(0, at); !folder(above)) TRY(make_folder(above));
    return {};
}

// Without MS_REC: what is mounted below is somebody else's. Devices stay devices: only a file that was named is one.
Status mount_binds(const std::vector<Bind>& binds) {
    for (const auto& [path, source] : binds) {
        const std::string from = "/proc/self/fd/" + std::to_string(source.get()), target = root + path;
        TRY(make_folders_above(path));
        if (!folder(from)) {
            if (::access(target.c_str(), F_OK) == 0) {
                if (::mount(from.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) return failed("bind", path);
            } else {
                TRY(bind_file(from, target));
            }
            continue;
        }
        if (!folder(target)) TRY(make_folder(target));
        if (::mount(from.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) return failed("bind", path);
    }
    return {};
}

// Writable as far as their files' owners allow: `ip netns` wants to mount /sys again, which a read-only one forbids.
// Both show only what belongs to the domain's own namespaces. Where a container's masks make the kernel refuse a fresh
// /sys, the domain has none: the machine's shows interfaces that are not its own.
Status make_kernel_views() {
    const std::string proc = std::string(root) + "/proc", sys = std::string(root) + "/sys";
    if (::mount("proc", proc.c_str(), "proc", quiet | MS_NOEXEC, nullptr) != 0)
        return host_fault(errno, "mount",
                          "/proc: the kernel refuses a fresh one, as it does where parts of /proc are masked (in a "
                          "container: run it with --security-opt systempaths=unconfined)");
    if (::mount("sysfs", sys.c_str(), "sysfs", quiet | MS_NOEXEC, nullptr) != 0)
        TRY(mount_at("tmpfs", sys, "tmpfs", quiet | MS_RDONLY, "size=4k"));
    return {};
}

Status make_run(const std::string& command) {
    const std::string run = std::string(root) + "/run";
    for (const char* name : {"/caisson", "/caisson/stats", "/xen", "/netns", "/lock"}) TRY(make_folder(run + name));
    const std::string target = root + std::string(command_inside);
    TRY(bind_file(command, target));
    return make_read_only(target.c_str(), 0);
}

Status leave_old_root() {
    if (::chdir(root) != 0) return failed("chdir", root);
    if (::syscall(SYS_pivot_root, ".", ".") != 0) return failed("pivot_root", root);
    if (::umount2(".", MNT_DETACH) != 0) return failed("umount", "the old root");
    if (::chdir("/") != 0) return failed("chdir", "/");
    return {};
}

// This program by its path, or nothing where the domain's user may not enter a folder above it or not run the file.
// By its path because the kernel binds no file of another mount namespace, and those are all we could inherit.
Fd reachable_program() {
    char path[4096];
    const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return {};
    path[length] = '\0';
    Fd program(::open(path, O_PATH | O_CLOEXEC));
    struct stat found{}, running{};
    if (!program || ::fstat(program.get(), &found) != 0 || ::stat("/proc/self/exe", &running) != 0) return {};
    // Another file may have taken the path since, as after a build.
    const bool same = found.st_dev == running.st_dev && found.st_ino == running.st_ino;
    if (!same || ::faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0) return {};
    return program;
}

// On the scaffold, so that it takes nothing from the domain's own folders in memory.
Status copy_program(int program, const std::string& target) {
    struct stat status{};
    if (program < 0 || ::fstat(program, &status) != 0) return host_fault(EACCES, "open", "this program for reading");
    const Fd copy(::open(target.c_str(), O_CREAT | O_EXCL | O_CLOEXEC | O_WRONLY, 0755));
    if (!copy) return failed("create", target);
    for (off_t at = 0; at < status.st_size;) {
        const ssize_t sent = ::sendfile(copy.get(), program, &at, static_cast<std::size_t>(status.st_size - at));
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return host_fault(sent < 0 ? errno : EIO, "copy this program to", target);
    }
    return {};
}

}  // namespace

Status enter_new_root(const RootOptions& options) {
    // Opened before the scaffold covers it: the program itself may live below /tmp.
    const Fd program = reachable_program();
    const auto binds = TRY(open_binds(options.binds));
    TRY(bind_machine());
    TRY(cover_folders(options));
    TRY(make_dev());
    TRY(mount_binds(binds));
    std::string command = "/proc/self/fd/" + std::to_string(program.get());
    if (!program) TRY(copy_program(options.program, command = std::string(scaffold) + "/program"));
    TRY(make_run(command));
    TRY(make_kernel_views());
    return leave_old_root();
}

}  // namespace caisson::domain
