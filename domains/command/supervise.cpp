#include "domains/supervisor/supervisor.h"

#include <chrono>
#include <cstdio>
#include <thread>

#include "domains/command/command.h"
#include "domains/toolstack/devices.h"
#include "domains/toolstack/move.h"
#include "ring/log.h"
#include "ring/text_file.h"

namespace caisson::command {
namespace {

using namespace std::chrono_literals;
using toolstack::State;

constexpr auto restart_patience = 5min;
constexpr auto connect_patience = 10s;

// Of the local hypervisor, if one runs; else of Xen, if this is its control domain.
Result<supervisor::Commands> commands(const State& state) {
    if (toolstack::hypervisor_process(state)) {
        const std::vector<std::string> caisson{"/proc/self/exe", "--state", state.folder};
        auto create = caisson, check = caisson, destroy = caisson;
        create.emplace_back("create");
        check.insert(check.end(), {"create", "--check"});
        destroy.emplace_back("destroy");
        return supervisor::Commands{.create = std::move(create),
                                    .check = std::move(check),
                                    .destroy = std::move(destroy),
                                    .hears_shutdown = false,
                                    .xenstored = state.xenstored_socket()};
    }
    const auto xen = read_text("/proc/xen/capabilities");
    if (xen && xen->find("control_d") != std::string::npos)
        return supervisor::Commands{.create = {"xl", "create", "-q"},
                                    .check = {"sh", "-c", "exec xl create -q -n \"$@\" >/dev/null", "sh"},
                                    .destroy = {"xl", "destroy"},
                                    .hears_shutdown = true,
                                    .xenstored = ""};
    return std::unexpected(Error{.fault = Fault::host,
                                 .err = ECONNREFUSED,
                                 .what = "no local hypervisor runs, and this is no control domain of Xen:",
                                 .detail = state.folder});
}

// A device that the successor refuses is an error though it is ready; for the others' guests it is waited a while.
Status devices_follow(Store& store, const std::string& name) {
    std::string under_way = "its devices";
    for (const auto end = std::chrono::steady_clock::now() + connect_patience; std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(100ms)) {
        auto status = TRY(supervisor::status_of(store, name));
        const auto domain = parse_decimal<std::uint16_t>(status["domid"]);
        if (!domain) return {};  // gone again
        under_way = status["predecessors"].empty() ? "" : "a device of its predecessor";
        const auto links = TRY(toolstack::served_by(store, DomainId{*domain}));
        for (const auto& link : links) {
            const auto now = TRY(toolstack::states(store, link));
            if (toolstack::is_refused(store, link, now))
                return unsupported("", name + " is ready, but " + name_of(link) +
                                           " does not connect: " + toolstack::why_not_connected(store, link));
            if (!now.connected()) under_way = name_of(link);
        }
        if (under_way.empty()) return {};
    }
    say(name + " is ready; not connected yet: " + under_way);
    return {};
}

int answer_ready(Store& store, const std::string& name, const std::string& domid) {
    std::printf("%s runs as domain %s\n", name.c_str(), domid.c_str());
    std::fflush(stdout);
    const Status follow = devices_follow(store, name);
    return follow ? exit_ok : complain(follow.error());
}

}  // namespace

int supervise(const State& state, const SuperviseOptions& options) {
    auto here = commands(state);
    if (!here) return complain(here.error());
    supervisor::Options wanted{.commands = std::move(*here), .files = options.files};
    const auto seconds = [](double number) {
        return std::chrono::duration_cast<supervisor::Clock::duration>(std::chrono::duration<double>(number));
    };
    wanted.patience.start = seconds(options.start_seconds);
    wanted.patience.heart = seconds(options.heart_seconds);
    wanted.patience.steady = seconds(options.steady_seconds);
    const auto done = supervisor::supervise(wanted);
    return done ? exit_ok : complain(done.error());
}

int restart(const State& state, const RestartOptions& options) {
    std::string asked_for;
    for (const auto& setting : options.settings) {
        if (!supervisor::is_setting(setting))
            return say("restart: '" + escaped(setting) + "' is no KEY=VALUE"), exit_usage;
        asked_for += setting + "\n";
    }
    const auto here = commands(state);
    if (!here) return complain(here.error());
    auto store = Store::open(here->xenstored);
    if (!store) return complain(store.error());
    auto before = supervisor::status_of(*store, options.domain);
    if (!before) return complain(before.error());
    std::string& lives = (*before)["restarts"];
    if (lives.empty()) lives = "0";  // it has not said so yet
    if (const auto asked = supervisor::ask_restart(*store, *here, options.domain, options.settings); !asked)
        return complain(asked.error());
    const auto end = std::chrono::steady_clock::now() + restart_patience;
    while (options.wait) {
        std::this_thread::sleep_for(100ms);
        auto now = supervisor::status_of(*store, options.domain);
        if (!now) return complain(now.error());
        if (std::chrono::steady_clock::now() > end)
            return say(options.domain + " is not ready again: " + (*now)["why"]), exit_failed;
        if ((*now)["state"] != "ready" || (*now)["restarts"] == lives) continue;
        if (asked_for.empty() || (*now)["settings"] == asked_for)
            return answer_ready(*store, options.domain, (*now)["domid"]);
        say(options.domain +
            " is ready, but not with these settings (others came, or it went back to the old ones): " + (*now)["why"]);
        return exit_failed;
    }
    return exit_ok;
}

}  // namespace caisson::command
