#include "domains/toolstack/traffic.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "domains/domain/birth.h"
#include "domains/domain/stats_page.h"
#include "ring/log.h"

namespace caisson::toolstack {
namespace {

constexpr std::size_t most_pages = 256;

Fd open_beneath(int folder, const char* path, std::uint64_t flags) {
    open_how how{};
    how.flags = flags | O_CLOEXEC | O_NOFOLLOW;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    return Fd(static_cast<int>(::syscall(SYS_openat2, folder, path, &how, sizeof how)));
}

// The domain's root, seen from outside. The link itself is the kernel's; what lies behind it is the domain's.
Fd stats_of(pid_t init) {
    const Fd root(::open(fmt::format("/proc/{}/root", init).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) return {};
    return open_beneath(root.get(), domain::stats_folder, O_RDONLY | O_DIRECTORY);
}

DeviceTraffic summary(const DeviceStats& page) {
    DeviceTraffic sum{.device_class = escaped(page.class_name()),
                      .frontend = page.frontend,
                      .backend = page.backend,
                      .device = page.device,
                      .is_backend = page.role == 1,
                      .restarts = page.restarts.get(),
                      .broken = page.broken.get()};
    for (const auto& queue : page.queue) {
        sum.requests += queue.requests.get();
        sum.dropped += queue.dropped.get();
        sum.errors += queue.errors.get();
        sum.bytes_in += sum.is_backend ? queue.bytes_in.get() : queue.bytes_out.get();
        sum.bytes_out += sum.is_backend ? queue.bytes_out.get() : queue.bytes_in.get();
    }
    return sum;
}

std::string human(double bytes) {
    constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    std::size_t unit = 0;
    for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
    return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

const DomainTraffic* earlier(const std::vector<DomainTraffic>& before, const DomainTraffic& now) {
    for (const auto& domain : before)
        if (domain.id == now.id && domain.name == now.name) return &domain;
    return nullptr;
}

const DeviceTraffic* earlier(const DomainTraffic* before, const DeviceTraffic& now) {
    if (before == nullptr) return nullptr;
    for (const auto& device : before->devices)
        if (device.device_class == now.device_class && device.frontend == now.frontend && device.device == now.device &&
            device.is_backend == now.is_backend)
            return &device;
    return nullptr;
}

std::string rate(std::uint64_t now, std::uint64_t before, double seconds) {
    return human(now > before && seconds > 0 ? static_cast<double>(now - before) / seconds : 0) + "/s";
}

std::string row(const std::string& id, const std::string& name, const std::string& in, const std::string& out,
                const std::string& rate_in, const std::string& rate_out, const std::string& requests,
                const std::string& dropped, const std::string& restarts) {
    return fmt::format("{:<4}{:<26}{:>12}{:>12}{:>14}{:>14}{:>12}{:>9}{:>9}\n", id, name, in, out, rate_in, rate_out,
                       requests, dropped, restarts);
}

}  // namespace

// Sums of what strangers wrote may wrap; they are shown, nothing is done with them.
std::uint64_t DomainTraffic::total_in() const {
    std::uint64_t sum = 0;
    for (const auto& device : devices) sum += device.bytes_in;
    return sum;
}
std::uint64_t DomainTraffic::total_out() const {
    std::uint64_t sum = 0;
    for (const auto& device : devices) sum += device.bytes_out;
    return sum;
}

std::vector<DeviceTraffic> read_stats(const Fd& folder) {
    std::vector<DeviceTraffic> found;
    if (!folder) return found;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(::fcntl(folder.get(), F_DUPFD_CLOEXEC, 0)),
                                                      ::closedir);
    if (!entries) return found;
    std::size_t seen = 0;
    while (const dirent* entry = ::readdir(entries.get())) {
        if (entry->d_name[0] == '.') continue;
        if (++seen > most_pages) break;
        // Non-blocking: a pipe in its place must not hold us up.
        const Fd file = open_beneath(folder.get(), entry->d_name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        DeviceStats page;
        if (domain::copy_page(file, page)) found.push_back(summary(page));
    }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
        return std::tie(a.is_backend, a.device_class, a.frontend, a.device) <
               std::tie(b.is_backend, b.device_class, b.frontend, b.device);
    });
    return found;
}

Result<std::vector<DomainTraffic>> traffic(Toolstack& toolstack) {
    std::vector<DomainTraffic> all;
    const auto domains = TRY(toolstack.list());
    for (const auto& domain : domains) {
        DomainTraffic row{.id = domain.usage.id.raw, .name = domain.name(), .devices = {}};
        if (domain.usage.id == control_domain)
            row.devices = read_stats(Fd(::open(toolstack.state().stats().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
        else if (domain.record && alive(domain.record->init))
            row.devices = read_stats(stats_of(domain.record->init.pid));
        all.push_back(std::move(row));
    }
    return all;
}

std::string traffic_table(const std::vector<DomainTraffic>& now, const std::vector<DomainTraffic>& before,
                          double seconds) {
    std::string text = row("ID", "DOMAIN / device", "IN", "OUT", "IN/s", "OUT/s", "REQUESTS", "DROPPED", "RESTARTS");
    for (const auto& domain : now) {
        const DomainTraffic* old = earlier(before, domain);
        text += row(std::to_string(domain.id), domain.name, human(static_cast<double>(domain.total_in())),
                    human(static_cast<double>(domain.total_out())),
                    old != nullptr ? rate(domain.total_in(), old->total_in(), seconds) : "",
                    old != nullptr ? rate(domain.total_out(), old->total_out(), seconds) : "", "", "", "");
        for (const auto& d : domain.devices) {
            const DeviceTraffic* then = earlier(old, d);
            const std::string name = fmt::format("  {} {}/{} {} {}", d.device_class, d.frontend, d.device,
                                                 d.is_backend ? "for" : "from", d.is_backend ? d.frontend : d.backend);
            text += row("", name, human(static_cast<double>(d.bytes_in)), human(static_cast<double>(d.bytes_out)),
                        then != nullptr ? rate(d.bytes_in, then->bytes_in, seconds) : "",
                        then != nullptr ? rate(d.bytes_out, then->bytes_out, seconds) : "", std::to_string(d.requests),
                        std::to_string(d.dropped), std::to_string(d.restarts));
        }
    }
    return text;
}

std::string traffic_json(const std::vector<DomainTraffic>& now) {
    nlohmann::json json = nlohmann::json::array();
    for (const auto& domain : now) {
        nlohmann::json devices = nlohmann::json::array();
        for (const auto& d : domain.devices)
            devices.push_back({{"class", d.device_class},
                               {"role", d.is_backend ? "backend" : "frontend"},
                               {"frontend", d.frontend},
                               {"backend", d.backend},
                               {"device", d.device},
                               {"bytes_in", d.bytes_in},
                               {"bytes_out", d.bytes_out},
                               {"requests", d.requests},
                               {"dropped", d.dropped},
                               {"errors", d.errors},
                               {"restarts", d.restarts},
                               {"broken", d.broken}});
        json.push_back({{"id", domain.id},
                        {"name", domain.name},
                        {"bytes_in", domain.total_in()},
                        {"bytes_out", domain.total_out()},
                        {"devices", std::move(devices)}});
    }
    return json.dump(1);
}

}  // namespace caisson::toolstack
