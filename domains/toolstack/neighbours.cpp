#include "domains/toolstack/neighbours.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <array>
#include <set>
#include <sstream>

#include "domains/toolstack/devices.h"
#include "ring/log.h"

namespace caisson::toolstack {
namespace {

// "fd00:0::1" and "fd00::1" are one address: in the kernel's spelling.
std::set<std::string> addresses(const std::string& text) {
    std::set<std::string> found;
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        const int family = word.find(':') == std::string::npos ? AF_INET : AF_INET6;
        std::array<std::byte, sizeof(in6_addr)> bytes;
        std::array<char, INET6_ADDRSTRLEN> spelling;
        if (::inet_pton(family, word.c_str(), bytes.data()) == 1)
            found.insert(::inet_ntop(family, bytes.data(), spelling.data(), spelling.size()));
    }
    return found;
}

}  // namespace

std::string in_common(const Neighbour& one, const Neighbour& other) {
    if (one.backend != other.backend) return {};
    if (!one.mac.empty() && one.mac == other.mac) return "have the MAC " + escaped(one.mac);
    const auto mine = addresses(one.ip);
    for (const auto& address : addresses(other.ip))
        if (mine.contains(address)) return "have the address " + address;
    return {};
}

Result<std::vector<Neighbour>> neighbours_of(Store& store, DomainId domain, const std::string& name) {
    std::vector<Neighbour> found;
    const auto devices = TRY(devices_of(store, domain));
    for (const auto& link : devices) {
        if (link.device_class != "vif") continue;
        const auto mac = TRY(store.read(trusted_path(link) + "/mac"));
        const auto ip = TRY(store.read(trusted_path(link) + "/ip"));
        found.push_back({.name = fmt::format("vif {} of the domain '{}'", link.id.raw, escaped(name)),
                         .backend = std::to_string(link.backend.raw),
                         .mac = mac.value_or(""),
                         .ip = ip.value_or("")});
    }
    return found;
}

}  // namespace caisson::toolstack
