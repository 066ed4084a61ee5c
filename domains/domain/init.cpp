#include "domains/domain/init.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "domains/domain/birth.h"
#include "domains/domain/network.h"
#include "domains/domain/plan.h"
#include "domains/domain/process.h"
#include "protocols/xenbus.h"
#include "ring/fd.h"
#include "ring/log.h"
#include "ring/signals.h"
#include "ring/store.h"

namespace caisson::domain {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto first_pause = 100ms, longest_pause = 5000ms;  // between two starts of a service that dies
constexpr auto settle = 5s;    // how long the guest's program waits for its console and its network
constexpr auto farewell = 5s;  // how long its services may take to bring out what it printed last
constexpr const char* console = "/dev/hvc0";

// A program that is started again whenever it ends.
struct Service {
    std::string name;
    std::vector<std::string> arguments;
    std::string terminal{};
    pid_t pid = 0;
    Clock::duration pause = first_pause;
    Clock::time_point started{}, due{};
};

class Init {
  public:
    Init(const Plan& plan, Log& log, Network network) : plan_(plan), log_(log), network_(std::move(network)) {}

    int run() {
        const Fd signals = take_signals({SIGCHLD, SIGTERM, SIGINT, SIGPWR}).value_or(Fd());
        if (plan_.frontends) services_.push_back({"frontd", {command_inside, "frontd"}});
        if (plan_.driver_domain) services_.push_back({"devd", {command_inside, "devd"}});
        const auto begun = Clock::now();
        while (!ending_) {
            start_due();
            if (!guest_started_) start_guest(Clock::now() - begun >= settle);
            wait(signals);
        }
        stop_services();
        return *ending_;
    }

  private:
    void start_due() {
        for (auto& service : services_) {
            if (service.pid != 0 || Clock::now() < service.due) continue;
            auto child =
                spawn(service.arguments,
                      {.input = -1, .output = -1, .terminal = service.terminal, .guest = service.name == "shell"});
            service.started = Clock::now();
            if (child)
                service.pid = *child;
            else
                postpone(service);
        }
    }

    // In order: a frontend that is asked to stop first carries what is in its terminal to the backend. Without that,
    // the last words of a guest that exits at once would be lost.
    void stop_services() {
        for (const auto& service : services_)
            if (service.pid != 0) ::kill(service.pid, SIGTERM);
        const auto end = Clock::now() + farewell;
        const auto busy = [](const Service& one) { return one.pid != 0 && one.name != "shell"; };
        while (Clock::now() < end && std::any_of(services_.begin(), services_.end(), busy)) {
            ::poll(nullptr, 0, 5);
            for (pid_t child; (child = ::waitpid(-1, nullptr, WNOHANG)) > 0;)
                for (auto& service : services_)
                    if (service.pid == child) service.pid = 0;
        }
    }

    // Its backend takes what is printed from now on.
    bool console_connected() {
        if (!store_) {
            const char* socket = std::getenv("XENSTORED_PATH");
            auto opened = Store::open(socket != nullptr ? socket : "");
            if (!opened) return false;
            store_.emplace(std::move(*opened));
        }
        const auto state = store_->read("console/state");
        return state && *state && parse_xenbus_state(**state) == XenbusState::connected;
    }

    void postpone(Service& service) {
        if (Clock::now() - service.started > longest_pause) service.pause = first_pause;
        service.due = Clock::now() + service.pause;
        service.pause = std::min<Clock::duration>(service.pause * 2, longest_pause);
        service.pid = 0;
    }

    // The console is the guest's terminal, as on Xen; without one (no frontend serves it) the output goes to the log.
    void start_guest(bool wait_no_longer) {
        struct stat status{};
        const bool terminal = ::stat(console, &status) == 0;
        if (!wait_no_longer && (!network_.complete() || (plan_.console && (!terminal || !console_connected())))) return;
        guest_started_ = true;
        store_.reset();
        if (const auto missing = network_.missing(); !missing.empty()) log_.say(missing);
        if (plan_.run.empty()) {
            if (terminal) services_.push_back({"shell", {"/bin/sh", "-i"}, console});
            return;
        }
        auto child = spawn({"/bin/sh", "-c", plan_.run},
                           {.input = -1, .output = -1, .terminal = terminal ? console : "", .guest = true});
        if (child)
            guest_ = *child;
        else
            ending_ = 127;
    }

    void wait(const Fd& signals) {
        pollfd ready[] = {{signals.get(), POLLIN, 0}, {network_.fd(), POLLIN, 0}};
        ::poll(ready, 2, milliseconds());
        if (ready[1].revents != 0) network_.refresh();
        signalfd_siginfo info{};
        while (::read(signals.get(), &info, sizeof info) == sizeof info)
            if (info.ssi_signo != SIGCHLD) ending_ = 0;
        reap();
    }

    // Forever when nothing is due: an idle domain does not wake up.
    int milliseconds() const {
        std::optional<Clock::time_point> next;
        if (!guest_started_) next = Clock::now() + 20ms;
        for (const auto& service : services_)
            if (service.pid == 0 && (!next || service.due < *next)) next = service.due;
        if (!next) return -1;
        return static_cast<int>(std::max<std::int64_t>(0, (*next - Clock::now()) / 1ms + 1));
    }

    void reap() {
        int status = 0;
        for (pid_t child; (child = ::waitpid(-1, &status, WNOHANG)) > 0;) {
            const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            if (child == guest_) ending_ = code;
            for (auto& service : services_) {
                if (service.pid != child) continue;
                if (service.name != "shell")
                    log_.peer(service.name + " ended with " + std::to_string(code) + " and is started again");
                postpone(service);
            }
        }
    }

    const Plan& plan_;
    Log& log_;
    Network network_;
    std::vector<Service> services_;
    std::optional<Store> store_;  // until the guest has started
    bool guest_started_ = false;
    pid_t guest_ = 0;
    std::optional<int> ending_;
};

Result<Plan> read_plan() {
    const Fd file(plan_descriptor);
    struct stat status{};
    if (::fstat(file.get(), &status) != 0) return host_fault(errno, "the domain's plan");
    std::string text(static_cast<std::size_t>(status.st_size), '\0');
    if (::pread(file.get(), text.data(), text.size(), 0) != status.st_size)
        return host_fault(errno, "the domain's plan");
    return plan_from_json(text);
}

}  // namespace

int run_init() {
    Log log("domain-init");
    const auto plan = read_plan();
    if (!plan) return log.say(plan.error().message()), 1;
    auto network = Network::set_up(*plan, log);
    if (!network) return log.say(network.error().message()), 1;
    return Init(*plan, log, std::move(*network)).run();
}

}  // namespace caisson::domain
