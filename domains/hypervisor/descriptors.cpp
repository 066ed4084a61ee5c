#include "domains/hypervisor/descriptors.h"

#include <linux/memfd.h>
#include <sys/mman.h>

#include <charconv>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3
#endif

namespace caisson::hypervisor {

Result<OwnDescriptors> OwnDescriptors::open() {
    Fd directory(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return host_fault(errno, "open /proc/self/fd");
    return OwnDescriptors(std::move(directory));
}

Result<Fd> OwnDescriptors::reopen(int fd, int access_mode) const {
    char name[16] = {};
    std::to_chars(name, name + sizeof name - 1, fd);
    Fd copy(::openat(directory_.get(), name, access_mode | O_NONBLOCK | O_CLOEXEC));
    if (!copy) return host_fault(errno, "reopen");
    return copy;
}

Result<Fd> sealed_memory(const char* name, std::size_t bytes) {
    Fd memory(::memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL | MFD_ALLOW_SEALING));
    if (!memory && errno == EINVAL) memory.reset(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory) return host_fault(errno, "memfd_create");
    if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return host_fault(errno, "memory of a grant");
    if (::fallocate(memory.get(), 0, 0, static_cast<off_t>(bytes)) != 0) return host_fault(errno, "memory of a grant");
    if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) return host_fault(errno, "seal");
    return memory;
}

Status seal_for_good(int fd, Writing writing) {
    const int seals = writing == Writing::allowed ? F_SEAL_SEAL : F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
    if (::fcntl(fd, F_ADD_SEALS, seals) != 0) return host_fault(errno, "seal");
    return {};
}

}  // namespace caisson::hypervisor
