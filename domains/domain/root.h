// What a domain sees of the machine's files: everything that its programs need and nothing it could change.
//
// The machine's root read-only and without set-user-id, a fresh /proc and /sys of its own namespaces, a /dev with the
// harmless nodes and /dev/net/tun, and empty folders in memory where people keep secrets or programs write (/home,
// /root, /tmp, /run, /var/tmp). Called once, by PID 1 of a domain, in its new mount and pid namespaces.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "protocols/words.h"

namespace caisson::domain {

struct RootOptions {
    std::uint64_t memory_mib = 128;   // the most that each folder in memory may hold
    std::vector<std::string> hidden;  // more folders to cover
    std::vector<std::string> binds;   // files, folders, devices seen at their own place, not read-only
    int program = -1;                 // this program, opened for reading by who may reach it; -1: it could not be
};

// Afterwards the old root is gone and /run/caisson/caisson is this program: its file, where the domain's user may run
// that by its path, else a copy of `program` in memory. So a checkout below a folder of one user's is no hindrance.
Status enter_new_root(const RootOptions& options);

}  // namespace caisson::domain
