#include "domains/supervisor/supervisor.h"

#include <chrono>
#include <cstdio>
#include <thread>

#include "domains/command/command.h"
#include "ring/text_file.h"

namespace caisson::command {
namespace {

using namespace std::chrono_literals;
using toolstack::State;

constexpr auto restart_patience = 5min;

// Of the local hypervisor, if one runs; else of Xen, if this is its control domain.
Result<supervisor::Commands> commands(const State& state) {
    if (toolstack::hypervisor_process(state)) {
        const std::vector<std::string> caisson{"/proc/self/exe", "--state", state.folder};
        auto create = caisson, destroy = caisson;
        create.emplace_back("create");
        destroy.emplace_back("destroy");
        return supervisor::Commands{.create = std::move(create),
                                    .destroy = std::move(destroy),
                                    .hears_shutdown = false,
                                    .xenstored = state.xenstored_socket()};
    }
    const auto xen = read_text("/proc/xen/capabilities");
    if (xen && xen->find("control_d") != std::string::npos)
        return supervisor::Commands{
            .create = {"xl", "create", "-q"}, .destroy = {"xl", "destroy"}, .hears_shutdown = true, .xenstored = ""};
    return std::unexpected(Error{.fault = Fault::host,
                                 .err = ECONNREFUSED,
                                 .what = "no local hypervisor runs, and this is no control domain of Xen:",
                                 .detail = state.folder});
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
            return std::printf("%s runs as domain %s\n", options.domain.c_str(), (*now)["domid"].c_str()), exit_ok;
        say(options.domain + " did not get ready with the new settings, and runs with the old ones: " + (*now)["why"]);
        return exit_failed;
    }
    return exit_ok;
}

}  // namespace caisson::command
