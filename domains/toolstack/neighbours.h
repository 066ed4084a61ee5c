// Vifs that one backend could not tell apart: the same MAC address, or the same address in ip=. What comes for one of
// them would reach the other, or both by turns.
//
// xl does not look; Xen's hotplug scripts leave it to the bridge to be confused. Threads: one, the Store's.
#pragma once

#include <string>
#include <vector>

#include "domains/toolstack/tree.h"
#include "protocols/words.h"
#include "ring/store.h"

namespace caisson::toolstack {

struct Neighbour {
    std::string name;     // as a message calls it: "vif 0 of the domain 'guest'"
    std::string backend;  // name or id; two neighbours are compared only when it is the same text
    std::string mac, ip;  // ip: addresses, separated by blanks
};

// "have the MAC 00:16:3e:00:00:01"; empty when they share a backend but no address, or no backend.
std::string in_common(const Neighbour& one, const Neighbour& other);

// The vifs of a domain that exists, by Dom0's own copy; backends are ids.
Result<std::vector<Neighbour>> neighbours_of(Store& store, DomainId domain, const std::string& name);

}  // namespace caisson::toolstack
