#include "domains/domain/plan.h"

#include <nlohmann/json.hpp>

namespace caisson::domain {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(InterfacePlan, device, addresses, gateway)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Plan, name, domid, memory_mib, driver_domain, frontends, console, forward, nftables,
                                   run, interfaces, uplink_device, uplink_address, uplink_peer, uplink_gateway,
                                   uplink_run)

std::string to_json(const Plan& plan) {
    return nlohmann::json(plan).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

Result<Plan> plan_from_json(std::string_view text) {
    try {
        return nlohmann::json::parse(text).get<Plan>();
    } catch (const nlohmann::json::exception& wrong) {
        return host_fault(EINVAL, "the domain's plan", wrong.what());
    }
}

}  // namespace caisson::domain
