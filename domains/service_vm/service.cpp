#include "domains/service_vm/service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "domains/domain/process.h"

namespace caisson::service_vm {

using namespace std::chrono_literals;

namespace {

constexpr auto first_pause = 100ms, longest_pause = 5000ms;  // between two starts of one that dies
constexpr auto pulse_patience = 5s;                          // without a pulse for so long it is not well
constexpr auto kill_patience = 60s;                          // far beyond a stall of an emulated or crowded machine
constexpr auto look_period = 5s;

}  // namespace

void Service::start(std::function<void()> serves) {
    serves_ = std::move(serves);
    watchdog_ = loop_.every(look_period, [this] { look_after(); });
    launch();
}

void Service::launch() {
    due_.reset();
    started_ = pulse_ = Loop::Clock::now();
    served_ = false;
    int ends[2];
    if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0) {
        pipe_.reset(ends[0]);
        const Fd theirs(::fcntl(ends[1], F_DUPFD, 10));  // the one that survives exec
        ::close(ends[1]);
        const auto child = domain::spawn({"/init", name_, std::to_string(theirs.get())});
        if (child) pid_ = *child;
    }
    if (pid_ != 0)
        pulses_ = loop_.watch(pipe_.get(), POLLIN, [this](short) { hear(); });
    else
        due_ = loop_.after(longest_pause, [this] { launch(); });
}

void Service::hear() {
    std::array<char, 64> pulses;
    const auto got = ::read(pipe_.get(), pulses.data(), pulses.size());
    if (got == 0) pulses_.reset();  // it has ended: SIGCHLD says so, too
    if (got <= 0) return;
    pulse_ = Loop::Clock::now();
    if (!std::exchange(served_, true)) serves_();
}

bool Service::alive() const { return pid_ != 0 && served_ && Loop::Clock::now() - pulse_ < pulse_patience; }

void Service::look_after() {
    if (pid_ == 0 || stopping_ || Loop::Clock::now() - pulse_ < kill_patience) return;
    log_.peer(name_ + " does not answer and is killed");
    ::kill(pid_, SIGKILL);
    pulse_ = Loop::Clock::now();
}

bool Service::ended(pid_t child, int status) {
    if (child != pid_ || pid_ == 0) return false;
    pid_ = 0;
    pulses_.reset();
    if (stopping_) return false;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    log_.peer(name_ + " ended with " + std::to_string(code) + " and is started again");
    const bool lasted = Loop::Clock::now() - started_ > longest_pause;
    pause_ =
        lasted || pause_ == pause_.zero() ? first_pause : std::min<Loop::Clock::duration>(pause_ * 2, longest_pause);
    due_ = loop_.after(pause_, [this] { launch(); });
    return true;
}

void Service::stop() {
    stopping_ = true;
    due_.reset();
    if (pid_ != 0) ::kill(pid_, SIGTERM);
}

}  // namespace caisson::service_vm
