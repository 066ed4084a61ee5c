#include <sys/prctl.h>
#include <sys/stat.h>

#include <cstdlib>

#include "domains/controller/controller.h"
#include "ring/port.h"
#include "ring/signals.h"

namespace caisson {

using namespace std::chrono_literals;

namespace {

constexpr auto stop_patience = 2s;

std::string chosen(const std::string& option, const char* variable, const char* otherwise) {
    if (!option.empty()) return option;
    const char* value = std::getenv(variable);
    return value && *value ? value : otherwise;
}

Status run(ControllerOptions options, bool processes) {
    if (!options.backends && !options.frontends) return host_fault(EINVAL, "a controller without a role");
    const HypervisorAddress address = find_hypervisor(options.hypervisor_socket);
    options.hypervisor_socket = address.local_socket;
    options.worker.port = address.kind;
    options.xenstored_socket = chosen(options.xenstored_socket, "XENSTORED_PATH", "");
    options.stats_directory = chosen(options.stats_directory, "CAISSON_STATS", "/run/caisson/stats");
    ::mkdir(options.stats_directory.c_str(), 0755);  // without it the statistics are for nobody to see

    const Fd signals = TRY(take_signals({SIGTERM, SIGINT}));  // before any thread is started
    auto hypervisor = TRY(open_hypervisor(address));
    WorkerPort port = TRY(WorkerPort::open(processes ? PortKind::local : address.kind));
    auto store = TRY(Store::open(options.xenstored_socket));
    auto loop = TRY(Loop::make());
    const auto workers =
        processes ? make_process_workers(*loop, options.worker) : make_inline_workers(*loop, std::move(port));
    Controller controller(*loop, *hypervisor, store, *workers, options);
    TRY(controller.start());
    Loop::Handle pulse;
    if (options.pulse) {
        options.pulse();
        pulse = loop->every(1s, options.pulse);
    }
    const auto terminate = loop->watch(signals.get(), POLLIN, [&](short) { loop->stop(); });
    loop->run();
    if (controller.lost()) return std::unexpected(*controller.lost());  // nobody left to say Closed to

    controller.stop();
    const auto until = Loop::Clock::now() + stop_patience;
    while (!controller.idle() && Loop::Clock::now() < until) loop->turn(100ms);
    return {};
}

}  // namespace

Status run_controller(const ControllerOptions& options) { return run(options, true); }
Status serve(const ControllerOptions& options) { return run(options, false); }

}  // namespace caisson
