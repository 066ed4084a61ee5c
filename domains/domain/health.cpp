#include "domains/domain/health.h"

#include <ctime>
#include <filesystem>
#include <map>

#include "domains/domain/birth.h"
#include "domains/domain/stats_page.h"
#include "ring/device.h"

namespace caisson::domain {
namespace {

const std::string folder = "data/service/";

std::uint64_t milliseconds_since_boot() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000 + static_cast<std::uint64_t>(now.tv_nsec) / 1'000'000;
}

std::string bytes_carried() {
    std::map<std::string, std::uint64_t> carried;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(stats_folder, none)) {
        const Fd file(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
        DeviceStats page;
        if (!copy_page(file, page) || page.role != static_cast<std::uint32_t>(Role::backend)) continue;
        std::uint64_t& sum = carried[escaped(page.class_name())];
        for (const auto& queue : page.queue) sum += queue.bytes_in.get() + queue.bytes_out.get();
    }
    std::string text;
    for (const auto& [name, bytes] : carried) text += (text.empty() ? "" : " ") + name + "=" + std::to_string(bytes);
    return text;
}

}  // namespace

Result<Health> Health::open(const std::string& image) {
    Health health(TRY(Store::open("")));
    TRY(health.store_.write(folder + "image", image));
    TRY(health.store_.write(folder + "restarts", "0"));
    health.starting();
    return health;
}

void Health::beat() {
    const bool first = beats_ == 0;
    if (first) tell("uptime", std::to_string(milliseconds_since_boot()));
    tell("heartbeat", std::to_string(++beats_));
    tell("bytes", bytes_carried());
    if (first) tell("state", "ready");
}

void Health::tell(const std::string& key, const std::string& value) {
    if (const Status told = store_.write(folder + key, value); !told) log_.peer(told.error());
}

}  // namespace caisson::domain
