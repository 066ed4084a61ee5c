// Who is who inside the broker. A domain id is reused one day, (id, generation) never: whatever the broker keeps about
// a domain is keyed by both, so that a newcomer inherits nothing from the dead (XSA-322, XSA-417).
#pragma once

#include <compare>
#include <cstdint>

#include "protocols/words.h"

namespace caisson::hypervisor {

struct DomainKey {
    DomainId id{};
    std::uint32_t generation = 0;
    auto operator<=>(const DomainKey&) const = default;
};

using ConnectionId = Id<struct ConnectionTag, std::uint64_t>;
using RegionId = Id<struct RegionTag, std::uint64_t>;

// The calls refuse with these: `what` names the rule or the quota, and nothing is allocated.
inline std::unexpected<Error> deny(int err, const char* what) {
    return std::unexpected(Error{.fault = Fault::host, .err = err, .what = what});
}
inline std::unexpected<Error> deny_peer(int err, const char* what, std::uint64_t got = 0) {
    return std::unexpected(Error{.fault = Fault::peer, .err = err, .what = what, .got = got});
}

}  // namespace caisson::hypervisor
