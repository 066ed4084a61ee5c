// What runs inside a domain: controllers, workers, PID 1.
#include "domains/catalogue.h"
#include "domains/command/command.h"
#include "domains/controller/controller.h"
#include "domains/domain/health.h"
#include "domains/domain/init.h"
#include "domains/worker/worker.h"

namespace caisson::command {
namespace {

using domain::Health;

constexpr int worker_control = 3;  // as spawn_isolated() leaves it

int controller(ControllerOptions options) {
    options.catalogue = catalogue();
    const auto done = run_controller(options);
    return done ? exit_ok : complain(done.error());
}

// Pulses come every second.
std::function<void()> heart(Health& health) {
    return [&health, pulses = 0U]() mutable {
        if (pulses++ % Health::beat_period.count() == 0) health.beat();
    };
}

}  // namespace

int devd() {
    ControllerOptions options{.backends = true};
    auto health = Health::open("devd");
    if (health)
        options.pulse = heart(*health);
    else
        say("nobody hears of our health: " + health.error().message());
    return controller(std::move(options));
}

int frontd() { return controller({.frontends = true}); }
int worker() { return run_worker(worker_control, catalogue()); }
int domain_init() { return domain::run_init(); }

}  // namespace caisson::command
