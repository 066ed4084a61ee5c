#include "domains/service_vm/init.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "domains/domain/health.h"
#include "domains/service_vm/kernel.h"
#include "domains/service_vm/links.h"
#include "domains/service_vm/packet_filter.h"
#include "domains/service_vm/service.h"
#include "ring/loop.h"
#include "ring/signals.h"
#include "ring/text_file.h"

namespace caisson::service_vm {

using namespace std::chrono_literals;

namespace {

using domain::Health;

constexpr int power_off_signal = SIGUSR1, restart_signal = SIGUSR2;
constexpr auto farewell = 5s;  // for the controllers to say Closed for every device

Fd block_signals() {
    ::signal(SIGPIPE, SIG_IGN);
    return take_signals({SIGCHLD, SIGTERM, SIGINT, power_off_signal, restart_signal}).value_or(Fd());
}

class Init {
  public:
    Init(Loop& loop, Log& log, const Recipe& recipe, Links links, std::optional<Health> health)
        : loop_(loop), log_(log), links_(std::move(links)), health_(std::move(health)), signals_(block_signals()) {
        if (recipe.frontends) services_.push_back(std::make_unique<Service>(loop, log, "frontd"));
        if (recipe.backends) services_.push_back(std::make_unique<Service>(loop, log, "devd"));
    }

    [[noreturn]] void run() {
        [[maybe_unused]] const auto heard = loop_.watch(signals_.get(), POLLIN, [this](short) { hear(); });
        [[maybe_unused]] const auto news = loop_.watch(links_.fd(), POLLIN, [this](short) { links_.refresh(log_); });
        [[maybe_unused]] const auto beat = loop_.every(Health::beat_period, [this] { report(); });
        links_.refresh(log_);
        for (auto& service : services_) service->start([this] { report(); });
        while (!end_) loop_.turn(1s);
        stop();
        end_machine(*end_);
    }

  private:
    void hear() {
        signalfd_siginfo info{};
        while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
            const int signal = static_cast<int>(info.ssi_signo);
            if (signal != SIGCHLD && !end_) end_ = signal == restart_signal ? End::restart : End::power_off;
        }
        reap();
    }

    // Children of others, too: whoever loses its parent becomes ours.
    void reap() {
        int status = 0;
        for (pid_t child; (child = ::waitpid(-1, &status, WNOHANG)) > 0;)
            for (auto& service : services_)
                if (service->ended(child, status) && health_ && !end_) health_->restarted();
    }

    // Called every beat, and when a service comes to serve: so that the first "ready" is not late.
    void report() {
        const bool all = std::ranges::all_of(services_, [](const auto& one) { return one->alive(); });
        if (!health_ || !all) return;
        health_->memory(memory_in_use());
        health_->beat();
    }

    void stop() {
        log_.say(*end_ == End::power_off ? "powers off" : "restarts");
        if (health_) health_->stopping();
        for (auto& service : services_) service->stop();
        const auto until = Loop::Clock::now() + farewell;
        const auto running = [](const auto& one) { return one->running(); };
        while (std::ranges::any_of(services_, running) && Loop::Clock::now() < until) {
            loop_.turn(50ms);
            reap();
        }
    }

    Loop& loop_;
    Log& log_;
    Links links_;
    std::optional<Health> health_;
    const Fd signals_;
    std::vector<std::unique_ptr<Service>> services_;
    std::optional<End> end_;
};

Result<Recipe> read_recipe() {
    std::string text = TRY(read_text("/recipe"));
    if (!text.ends_with('\n')) text += '\n';
    return parse_recipe(text + lines_of_command_line(TRY(read_text("/proc/cmdline"))), "recipe");
}

Status bring_up(Log& log, std::optional<Health>& health) {
    TRY(mount_file_systems());
    if (auto opened = Health::open(TRY(read_text("/variant"))))
        health.emplace(std::move(*opened));
    else
        log.say("nobody hears of our health: " + opened.error().message());
    const Recipe recipe = TRY(read_recipe());
    if (const Status loaded = load_modules(recipe); !loaded) log.say(loaded.error().message());
    close_kernel();
    TRY(masquerade(recipe.masquerades));  // before anything is forwarded, or nothing ever is
    auto links = TRY(Links::set_up(recipe));
    const auto loop = TRY(Loop::make());
    Init(*loop, log, recipe, std::move(links), std::move(health)).run();
}

}  // namespace

void run_init() {
    Log log("init");
    std::optional<Health> health;
    const Status never = bring_up(log, health);
    log.say(never.error().message());
    if (health) health->failed(never.error().message());
    // The end of PID 1 would be a kernel's panic without a word of why.
    const Fd signals = block_signals();
    signalfd_siginfo info{};
    pollfd ready{.fd = signals.get(), .events = POLLIN, .revents = 0};
    while (true) {
        ::poll(&ready, 1, -1);
        while (::read(signals.get(), &info, sizeof info) == sizeof info)
            if (info.ssi_signo != SIGCHLD)
                end_machine(info.ssi_signo == restart_signal ? End::restart : End::power_off);
        while (::waitpid(-1, nullptr, WNOHANG) > 0) continue;
    }
}

int ask_for_end(End how) { return ::kill(1, how == End::power_off ? power_off_signal : restart_signal) == 0 ? 0 : 1; }

}  // namespace caisson::service_vm
