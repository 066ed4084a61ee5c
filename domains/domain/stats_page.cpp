#include "domains/domain/stats_page.h"

#include <sys/stat.h>

namespace caisson::domain {

bool copy_page(const Fd& file, DeviceStats& page) {
    struct stat status{};
    if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
    if (::pread(file.get(), static_cast<void*>(&page), sizeof page, 0) != static_cast<ssize_t>(sizeof page))
        return false;
    return page.magic == stats_magic && page.size == sizeof page && page.queues <= stats_max_queues;
}

}  // namespace caisson::domain
