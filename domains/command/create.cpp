#include <chrono>
#include <cstdio>
#include <thread>

#include "domains/command/command.h"
#include "domains/toolstack/cfg_file.h"
#include "domains/toolstack/domain_config.h"
#include "domains/toolstack/keeper.h"
#include "domains/toolstack/toolstack.h"
#include "ring/endpoint.h"

namespace caisson::command {
namespace {

using namespace std::chrono_literals;
using toolstack::State;

constexpr auto connect_patience = 10s;

Result<toolstack::DomainConfig> read_config(const CreateOptions& options) {
    auto file = TRY(toolstack::CfgFile::read(options.file, options.settings));
    auto parsed = toolstack::parse_domain(file);
    if (!parsed) return std::unexpected(parsed.error());
    for (const auto& warning : parsed->warnings) say("warning: " + warning);
    return std::move(parsed->config);
}

bool waits_for_program(Store& store, const toolstack::DeviceLink& link) {
    const auto claimed = store.read(toolstack::frontend_path(link) + "/" + claimed_key);
    return claimed && *claimed;
}

// A domain whose program is over before it was ready: nothing is there that could still connect.
Status still_runs(toolstack::Toolstack& toolstack, const toolstack::DomainRecord& born) {
    const auto all = TRY(toolstack.list());
    for (const auto& domain : all)
        if (domain.usage.id.raw == born.domid && domain.usage.generation == born.generation && !domain.usage.dying)
            return {};
    return unsupported("", born.name + " ended before its devices were connected; 'caisson log " + born.name +
                               "' shows how, and what it printed (a console's backend has the rest)");
}

// The first device that does not connect in time is the one worth naming.
Status wait_for_devices(const State& state, const toolstack::DomainRecord& born) {
    const DomainId domain{born.domid};
    auto toolstack = TRY(toolstack::Toolstack::open(state));
    const auto devices = TRY(toolstack::devices_of(toolstack.store(), domain));
    TRY(still_runs(toolstack, born));  // after the list, which is empty for a dead one
    const auto end = std::chrono::steady_clock::now() + connect_patience;
    for (const auto& link : devices)
        while (!waits_for_program(toolstack.store(), link)) {
            const auto now = toolstack::states(toolstack.store(), link);
            if (now && now->connected()) break;
            TRY(still_runs(toolstack, born));
            const bool refused = now && toolstack::is_refused(toolstack.store(), link, *now);
            if (refused || std::chrono::steady_clock::now() > end)
                return unsupported("", name_of(link) + " does not connect: " +
                                           toolstack::why_not_connected(toolstack.store(), link) + "; the domain runs");
            std::this_thread::sleep_for(10ms);
        }
    return {};
}

int create_in_foreground(const State& state, const toolstack::DomainConfig& config) {
    int failed = 0;
    const int code = toolstack::keep(state, config, {.echo = true, .born = [&](const auto& born) {
                                                         if (!born) failed = complain(born.error());
                                                     }});
    return failed != 0 ? failed : code;
}

}  // namespace

int create(const State& state, const CreateOptions& options) {
    const auto config = read_config(options);
    if (!config) return complain(config.error());
    if (options.check) return exit_ok;
    if (options.start && !toolstack::hypervisor_process(state))
        if (const int failed = hypervisor(state, {.background = true}); failed != 0) return failed;
    // Without one there are no folders either, in which a keeper could complain.
    if (auto running = toolstack::Toolstack::open(state); !running) return complain(running.error());
    if (options.foreground) return create_in_foreground(state, *config);
    const auto born = toolstack::keep_in_background(state, *config);
    if (!born) return complain(born.error());
    std::printf("%s runs as domain %u\n", born->name.c_str(), born->domid);
    std::fflush(stdout);
    if (!options.wait) return exit_ok;
    const auto waited = wait_for_devices(state, *born);
    return waited ? exit_ok : complain(waited.error());
}

int destroy(const State& state, const std::vector<std::string>& domains, bool all) {
    if (all == !domains.empty()) return say("destroy: name domains, or say --all"), exit_usage;
    auto toolstack = toolstack::Toolstack::open(state);
    if (!toolstack) return complain(toolstack.error());
    std::vector<std::string> names = domains;
    if (all) {
        auto everyone = toolstack->list();
        if (!everyone) return complain(everyone.error());
        // The youngest first: guests before the driver domains that serve them.
        for (auto domain = everyone->rbegin(); domain != everyone->rend(); ++domain)
            if (domain->usage.id != control_domain) names.push_back(std::to_string(domain->usage.id.raw));
    }
    int code = exit_ok;
    for (const auto& name : names) {
        const auto found = toolstack->find(name);
        const auto done = found ? toolstack->destroy(*found) : Status(std::unexpected(found.error()));
        if (!done) code = complain(done.error());
    }
    return code;
}

}  // namespace caisson::command
