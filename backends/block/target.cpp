#include "backends/block/target.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <memory>

#include "backends/block/nbd_connections.h"

namespace caisson::block::backend {

namespace {

constexpr int lock_attempts = 50;  // 10 ms apart

std::string proc_path(const Fd& file) { return "/proc/self/fd/" + std::to_string(file.get()); }

// ---- Files and devices ---------------------------------------------------------------------------------------------

int open_flags(const TargetWishes& wishes, bool direct) {
    return (wishes.read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0) | O_CLOEXEC | O_NOCTTY;
}

// A description of its own, of the very same file: by our descriptor, not by a name that somebody may have changed.
Result<Fd> open_again(const Fd& file, const TargetWishes& wishes, bool direct, const std::string& path) {
    const std::string own = proc_path(file);
    Fd again(::open(own.c_str(), open_flags(wishes, direct) | O_NOATIME));
    if (!again && errno == EPERM) again.reset(::open(own.c_str(), open_flags(wishes, direct)));  // not ours
    if (!again) return host_fault(errno, "open", path);
    return again;
}

std::uint32_t file_system_of(const Fd& file) {
    struct statfs fs{};
    return ::fstatfs(file.get(), &fs) == 0 ? static_cast<std::uint32_t>(fs.f_type) : 0;
}

bool of_a_network(const Fd& file) {
    constexpr std::uint32_t nfs = 0x6969, smb2 = 0xFE534D42, cifs = 0xFF534D42, ceph = 0x00C36400, v9 = 0x01021997;
    const std::uint32_t type = file_system_of(file);
    return type == nfs || type == smb2 || type == cifs || type == ceph || type == v9 || type == FUSE_SUPER_MAGIC;
}

// Whether every request that can come may go to the disk directly: they are aligned to the disk's sectors, and their
// memory to 512 bytes.
bool takes_direct(const Fd& file, const TargetWishes& wishes, std::uint32_t sector_size) {
    if (wishes.direct_io == false) return false;
    if (!wishes.direct_io && of_a_network(file) && !wishes.direct_io_safe) return false;
    if (!open_again(file, wishes, true, "")) return false;
    struct statx status{};
    if (::statx(file.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0) return false;
    if ((status.stx_mask & STATX_DIOALIGN) == 0) {  // older kernels, and file systems that do not say: a block's
        struct stat plain{};
        return ::fstat(file.get(), &plain) == 0 && static_cast<std::uint32_t>(plain.st_blksize) <= sector_size;
    }
    return status.stx_dio_offset_align != 0 && status.stx_dio_offset_align <= sector_size &&
           status.stx_dio_mem_align <= wire_sector;
}

Result<std::uint64_t> size_of(const Fd& file, const std::string& path) {
    struct stat status{};
    if (::fstat(file.get(), &status) != 0) return host_fault(errno, "stat", path);
    if (S_ISREG(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
    std::uint64_t bytes = 0;
    if (::ioctl(file.get(), BLKGETSIZE64, &bytes) != 0) return host_fault(errno, "size of", path);
    return bytes;
}

std::uint64_t queue_attribute(dev_t device, const char* name) {
    const std::string id = std::to_string(major(device)) + ":" + std::to_string(minor(device));
    for (const char* queue : {"/queue/", "/../queue/"}) {  // of a partition: its disk's
        const Fd file(::open(("/sys/dev/block/" + id + queue + name).c_str(), O_RDONLY | O_CLOEXEC));
        char text[32]{};
        if (!file || ::read(file.get(), text, sizeof text - 1) <= 0) continue;
        return std::strtoull(text, nullptr, 10);
    }
    return 0;
}

Status describe_device(const Fd& file, const std::string& path, const struct stat& status, Geometry& geometry) {
    int logical = 0;
    unsigned physical = 0;
    if (::ioctl(file.get(), BLKSSZGET, &logical) != 0 || ::ioctl(file.get(), BLKPBSZGET, &physical) != 0)
        return host_fault(errno, "sector size of", path);
    if (logical != 512 && logical != 4096)
        return unsupported("", path + " has sectors of " + std::to_string(logical) + " bytes, neither 512 nor 4096");
    geometry.sector_size = static_cast<std::uint32_t>(logical);
    geometry.physical_sector_size = physical;
    // A hole in a block device is what it can write as zeroes by itself (blkdev_fallocate(): no fallback).
    geometry.discard = queue_attribute(status.st_rdev, "write_zeroes_max_bytes") != 0;
    geometry.discard_granularity = static_cast<std::uint32_t>(queue_attribute(status.st_rdev, "discard_granularity"));
    return {};
}

Status open_file(Target& target) {
    const std::string& path = target.name.path;
    target.file.reset(::open(path.c_str(), open_flags(target.wishes, false) | O_NONBLOCK));  // a FIFO would wait
    if (!target.file) return host_fault(errno, "open", path);
    struct stat status{};
    if (::fstat(target.file.get(), &status) != 0) return host_fault(errno, "stat", path);
    Geometry& geometry = target.geometry;
    if (S_ISBLK(status.st_mode)) {
        TRY(describe_device(target.file, path, status, geometry));
        target.in_memory = major(status.st_rdev) == RAMDISK_MAJOR;
    } else if (S_ISREG(status.st_mode)) {
        const std::uint32_t type = file_system_of(target.file);
        target.in_memory = type == TMPFS_MAGIC || type == RAMFS_MAGIC;
        geometry.sector_size = geometry.physical_sector_size = target.wishes.sector_size;
        geometry.physical_sector_size = std::max<std::uint32_t>(
            geometry.sector_size, std::min<std::uint32_t>(static_cast<std::uint32_t>(status.st_blksize), page_size));
        geometry.discard = true;
        geometry.discard_granularity = static_cast<std::uint32_t>(status.st_blksize);
    } else {
        return unsupported("", path + " is neither a regular file nor a block device");
    }
    target.direct_io = takes_direct(target.file, target.wishes, geometry.sector_size);
    if (target.wishes.direct_io == true && !target.direct_io)
        return unsupported("",
                           path + " cannot be used with direct I/O: its file system does not allow it for sectors of " +
                               std::to_string(geometry.sector_size) + " bytes");
    geometry.sectors = TRY(size_of(target.file, path)) / geometry.sector_size * (geometry.sector_size / wire_sector);
    return {};
}

// While a device connects it has no worker: whoever holds the lock now is another's. But the kernel may still be busy
// with the last requests of the worker that served it before.
Status look_for_another(const Target& target) {
    const Fd probe = TRY(open_again(target.file, target.wishes, false, target.name.path));
    const bool together = target.wishes.shared || target.geometry.read_only();
    for (int i = 0; i < lock_attempts; ++i) {
        if (::flock(probe.get(), (together ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return {};
        if (errno != EWOULDBLOCK) return host_fault(errno, "lock", target.name.path);
        ::usleep(10'000);
    }
    return unsupported("",
                       target.name.path + (together ? " is written by another disk or program (its lock is held)"
                                                    : " is used by another disk or program (its lock is held); "
                                                      "mode \"w!\" (shared=1 in its caisson_disk line) shares a disk"));
}

// ---- Memory --------------------------------------------------------------------------------------------------------

Status open_memory(Target& target) {
    target.file.reset(::memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!target.file) return host_fault(errno, "memfd");
    if (::ftruncate(target.file.get(), static_cast<off_t>(target.name.bytes)) != 0)
        return host_fault(errno, "memory of a disk");
    // A worker that was taken over cannot make its successor read beyond the end.
    if (::fcntl(target.file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return host_fault(errno, "seals");
    return {};
}

// ---- NBD -----------------------------------------------------------------------------------------------------------

void describe_export(const NbdExport& found, Geometry& geometry, TargetWishes& wishes) {
    wishes.read_only |= found.read_only;
    geometry.sector_size = found.minimum_block > 512 ? 4096 : 512;
    geometry.physical_sector_size = std::clamp<std::uint32_t>(found.preferred_block, geometry.sector_size, 65536);
    geometry.sectors = found.bytes / geometry.sector_size * (geometry.sector_size / wire_sector);
    geometry.flush = geometry.barrier = found.flush;
    geometry.discard = found.trim;
    geometry.discard_granularity = geometry.physical_sector_size;
}

Status open_nbd(Target& target) {
    const NbdExport found = TRY(NbdServer(target.name).look());
    if (found.minimum_block > 4096)
        return unsupported(
            "", "the NBD server wants blocks of " + std::to_string(found.minimum_block) + " bytes, at most 4096");
    describe_export(found, target.geometry, target.wishes);
    target.connections = TRY(NbdConnections::make(target.name));
    return {};
}

}  // namespace

Result<Target> open_target(const TargetName& name, const TargetWishes& wishes) {
    Target target{.name = name, .wishes = wishes, .geometry = {}, .file = {}};
    Geometry& geometry = target.geometry;
    geometry.sector_size = geometry.physical_sector_size = wishes.sector_size;
    geometry.flush = geometry.barrier = true;
    target.wishes.read_only |= wishes.cdrom;
    switch (name.kind) {
        case HostKind::file: TRY(open_file(target)); break;
        case HostKind::nbd: TRY(open_nbd(target)); break;
        case HostKind::memory: TRY(open_memory(target)); [[fallthrough]];
        case HostKind::null:
            geometry.sectors = name.bytes / geometry.sector_size * (geometry.sector_size / wire_sector);
            geometry.discard = true;
            geometry.discard_granularity = page_size;
            break;
    }
    if (geometry.sectors == 0) return unsupported("", "the disk is empty: not one sector");
    if (wishes.cdrom) geometry.info |= disk_info::cdrom;
    if (wishes.removable) geometry.info |= disk_info::removable;
    if (target.wishes.read_only) geometry.info |= disk_info::read_only;
    if (!wishes.discard || target.wishes.read_only) geometry.discard = false;
    if (!geometry.discard) geometry.discard_granularity = 0;
    return target;
}

void Target::describe(Config& config) const {
    config.host = name.kind;
    config.in_memory = in_memory;
    config.shared_target = wishes.shared;
    config.geometry = geometry;
}

Status Target::hand_over(Handover& handover) const {
    switch (name.kind) {
        case HostKind::null: return {};
        case HostKind::memory: return handover.put(file);
        case HostKind::file: {
            TRY(look_for_another(*this));
            const auto mine = std::make_shared<Fd>(TRY(file.duplicate()));
            const auto next = std::make_shared<Fd>();
            handover.put_each_time([mine, next, wishes = wishes, direct = direct_io, path = name.path]() -> Result<Fd> {
                if (!*next) *next = TRY(open_again(*mine, wishes, direct, path));
                Fd now = std::move(*next);
                // The successor's, before this one's first request: a write that the kernel could not bring to the disk
                // is told once to each description that was there, and a worker may die between hearing and saying it.
                *next = TRY(open_again(*mine, wishes, direct, path));
                return now;
            });
            return {};
        }
        case HostKind::nbd: {
            connections->begin(geometry, wishes.read_only);
            handover.put_each_time([all = connections] { return all->next(); });
            return handover.put(connections->line());
        }
    }
    return {};
}

Status Target::renew(std::uint64_t lost) const { return connections ? connections->renew(lost) : Status{}; }

Result<std::uint64_t> Target::look_again() const {
    if (name.kind == HostKind::memory || name.kind == HostKind::null) return geometry.sectors;
    const std::uint64_t bytes =
        name.kind == HostKind::file ? TRY(size_of(file, name.path)) : TRY(NbdServer(name).look()).bytes;
    return bytes / geometry.sector_size * (geometry.sector_size / wire_sector);
}

}  // namespace caisson::block::backend
