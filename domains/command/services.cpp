// What runs inside a domain: controllers, workers, PID 1.
#include "domains/catalogue.h"
#include "domains/command/command.h"
#include "domains/controller/controller.h"
#include "domains/domain/init.h"
#include "domains/worker/worker.h"

namespace caisson::command {
namespace {

constexpr int worker_control = 3;  // as spawn_isolated() leaves it

int controller(Role role) {
    ControllerOptions options;
    (role == Role::backend ? options.backends : options.frontends) = true;
    options.catalogue = catalogue();
    const auto done = run_controller(options);
    return done ? exit_ok : complain(done.error());
}

}  // namespace

int devd() { return controller(Role::backend); }
int frontd() { return controller(Role::frontend); }
int worker() { return run_worker(worker_control, catalogue()); }
int domain_init() { return domain::run_init(); }

}  // namespace caisson::command
