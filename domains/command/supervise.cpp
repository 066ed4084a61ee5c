#include "domains/supervisor/supervisor.h"

#include <chrono>
#include <cstdio>
#include <thread>

#include "domains/command/command.h"
#include "domains/domain/process.h"
#include "domains/toolstack/devices.h"
#include "domains/toolstack/move.h"
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
                                    .check = {"xl", "create", "-q", "-n"},
                                    .destroy = {"xl", "destroy"},
                                    .hears_shutdown = true,
                                    .xenstored = ""};
    return std::unexpected(Error{.fault = Fault::host,
                                 .err = ECONNREFUSED,
                                 .what = "no local hypervisor runs, and this is no control domain of Xen:",
                                 .detail = state.folder});
}

// What can be known of new settings before the domain goes that runs well with the old ones.
Status would_be_made(const supervisor::Commands& commands, const std::string& file,
                     const std::vector<std::string>& settings) {
    if (settings.empty()) return {};
    auto check = commands.check;
    check.push_back(file);
    check.insert(check.end(), settings.begin(), settings.end());
    return domain::run(check);
}

// A device that the successor refuses is an error though it is ready; for the others' guests it is waited a while.
Status devices_follow(Store& store, const std::string& name) {
    const auto end = std::chrono::steady_clock::now() + connect_patience;
    for (bool under_way = true; under_way && std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(100ms)) {
        auto status = TRY(supervisor::status_of(store, name));
        under_way = !status["predecessors"].empty();
        const auto domain = parse_decimal<std::uint16_t>(status["domid"]);
        if (!domain) return {};  // gone again
        const auto links = TRY(toolstack::served_by(store, DomainId{*domain}));
        for (const auto& link : links) {
            const auto now = TRY(toolstack::states(store, link));
            if (toolstack::is_refused(store, link, now))
                return unsupported("", name + " is ready, but " + name_of(link) +
                                           " does not connect: " + toolstack::why_not_connected(store, link));
            under_way |= !now.connected();
        }
    }
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
    const auto here = commands(state);
    if (!here) return complain(here.error());
    auto store = Store::open(here->xenstored);
    if (!store) return complain(store.error());
    auto before = supervisor::status_of(*store, options.domain);
    if (!before) return complain(before.error());
    std::string& lives = (*before)["restarts"];
    if (lives.empty()) lives = "0";  // it has not said so yet
    if (const Status fine = would_be_made(*here, (*before)["file"], options.settings); !fine)
        return say(options.domain + " goes on as it is"), complain(fine.error());
    if (const auto asked = supervisor::ask_restart(*store, options.domain, options.settings); !asked)
        return complain(asked.error());
    const auto end = std::chrono::steady_clock::now() + restart_patience;
    while (options.wait) {
        std::this_thread::sleep_for(100ms);
        auto now = supervisor::status_of(*store, options.domain);
        if (!now) return complain(now.error());
        if (std::chrono::steady_clock::now() > end)
            return say(options.domain + " is not ready again: " + (*now)["why"]), exit_failed;
        if ((*now)["state"] != "ready" || (*now)["restarts"] == lives) continue;
        if (options.settings.empty() || (*now)["settings"].find(options.settings.front()) != std::string::npos)
            return answer_ready(*store, options.domain, (*now)["domid"]);
        say(options.domain + " did not get ready with the new settings, and runs with the old ones: " + (*now)["why"]);
        return exit_failed;
    }
    return exit_ok;
}

}  // namespace caisson::command
