// A device's page of statistics, read from the file that its controller made. Whoever wrote it is not believed: it has
// the right size and says so, and every number in it is only a number. Threads: any.
#pragma once

#include "ring/fd.h"
#include "ring/stats.h"

namespace caisson::domain {

// False: it is no such page.
bool copy_page(const Fd& file, DeviceStats& page);

}  // namespace caisson::domain
