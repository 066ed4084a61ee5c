#include "domains/service_vm/health.h"

#include <ctime>

#include "domains/service_vm/kernel.h"

namespace caisson::service_vm {
namespace {

const std::string folder = "data/service/";

std::uint64_t milliseconds_since_boot() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace

Result<Health> Health::open(const std::string& image) {
    Health health(TRY(Store::open("")));
    TRY(health.store_.write(folder + "image", image));
    TRY(health.store_.write(folder + "restarts", "0"));
    health.starting();
    return health;
}

void Health::ready() {
    if (!was_ready_) tell("uptime", std::to_string(milliseconds_since_boot()));
    was_ready_ = true;
    beat();
    tell("state", "ready");
}

void Health::beat() {
    tell("heartbeat", std::to_string(++beats_));
    tell("memory", std::to_string(memory_in_use()));
}

void Health::tell(const std::string& key, const std::string& value) {
    if (const Status told = store_.write(folder + key, value); !told) log_.peer(told.error());
}

}  // namespace caisson::service_vm
