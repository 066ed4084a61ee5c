// What PID 1 asks of the kernel: file systems, modules, settings, figures, and the end.
#pragma once

#include <string>
#include <string_view>

#include "domains/service_vm/recipe.h"

namespace caisson::service_vm {

Status mount_file_systems();

// In the recipe's order, from /modules. One that is there already is fine; of one that cannot be loaded for want of its
// device (ENODEV) nothing is said. The files are gone afterwards, and with them the memory that they take.
Status load_modules(const Recipe& recipe);

// From here on the kernel takes neither a module nor another kernel, not even from us.
void close_kernel();

// Memory in use, in KiB: what is not available, as /proc/meminfo counts it.
std::uint64_t memory_in_use();

enum class End { power_off, restart };
// Does not return.
[[noreturn]] void end_machine(End how);

}  // namespace caisson::service_vm
