#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "domains/command/command.h"
#include "domains/hypervisor/run.h"
#include "domains/toolstack/toolstack.h"
#include "ring/fd.h"

namespace caisson::command {
namespace {

using namespace std::chrono_literals;
using toolstack::State;

constexpr auto stop_patience = 5s;
constexpr auto between_starts = 1s;

struct Pipe {
    Fd read, write;
};

Result<Pipe> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return host_fault(errno, "pipe");
    return Pipe{.read = Fd(ends[0]), .write = Fd(ends[1])};
}

std::string read_all(const Fd& from) {
    std::string text;
    std::array<char, 512> part;
    for (ssize_t got; (got = ::read(from.get(), part.data(), part.size())) > 0;)
        text.append(part.data(), static_cast<std::size_t>(got));
    return text;
}

// Its own process, so that what serves a guest's bytes is not the process that holds every domain's grants.
pid_t start_console_devd(const State& state) {
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child != 0) return child;
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    ::setenv("CAISSON_HYPERVISOR", state.hypervisor_socket().c_str(), 1);
    ::setenv("XENSTORED_PATH", state.xenstored_socket().c_str(), 1);
    ::setenv("CAISSON_STATS", state.stats().c_str(), 1);
    ::execl("/proc/self/exe", "caisson", "devd", nullptr);
    ::_exit(127);
}

// Waits for the broker, says so, and then stands in xenconsoled's place: Domain-0 serves the consoles that no driver
// domain was named for. Ends with the broker.
[[noreturn]] void usher(const State& state, const HypervisorOptions& options, pid_t broker, Pipe ready, Fd told) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ready.write.reset();
    const std::string line = read_all(ready.read);
    if (line.empty() || ::getppid() != broker) ::_exit(1);
    (void)!::write(told ? told.get() : STDOUT_FILENO, line.data(), line.size());
    told.reset();
    while (options.console) {
        const pid_t devd = start_console_devd(state);
        if (devd > 0) ::waitpid(devd, nullptr, 0);
        std::this_thread::sleep_for(between_starts);
    }
    ::_exit(0);
}

// This process becomes the broker.
int serve(const State& state, const HypervisorOptions& options, Fd told) {
    auto ready = make_pipe();
    if (!ready) return complain(ready.error());
    const pid_t self = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return complain(host_fault(errno, "fork").error());
    if (child == 0) usher(state, options, self, std::move(*ready), std::move(told));
    told.reset();
    ready->read.reset();
    ::signal(SIGCHLD, SIG_IGN);  // the usher's end is nobody's business
    hypervisor::RunOptions run{.state = state.folder, .ready_fd = ready->write.release()};
    const auto done = hypervisor::run_broker(run);
    return done ? exit_ok : complain(done.error());
}

[[noreturn]] void daemonize(const State& state, const HypervisorOptions& options, Fd told) {
    ::setsid();
    const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const Fd log(::open(state.log_of("hypervisor").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    ::dup2(null.get(), 0);
    if (log && (::dup2(log.get(), 1) < 0 || ::dup2(log.get(), 2) < 0)) ::_exit(exit_failed);
    if (::chdir("/") != 0) ::_exit(exit_failed);
    ::_exit(serve(state, options, std::move(told)));
}

}  // namespace

int hypervisor(const State& state, const HypervisorOptions& options) {
    if (auto prepared = toolstack::prepare_state(state); !prepared) return complain(prepared.error());
    if (toolstack::hypervisor_process(state))
        return say("a hypervisor runs in " + state.folder + " already"), exit_failed;
    if (auto said = toolstack::say_consoles_served(state, options.console); !said) return complain(said.error());
    if (!options.background) return serve(state, options, Fd());
    auto told = make_pipe();
    if (!told) return complain(told.error());
    const pid_t child = ::fork();
    if (child < 0) return complain(host_fault(errno, "fork").error());
    if (child == 0) {
        told->read.reset();
        daemonize(state, options, std::move(told->write));
    }
    told->write.reset();
    const std::string line = read_all(told->read);
    if (!line.empty()) return std::fputs(line.c_str(), stdout), std::fflush(stdout), exit_ok;
    return say("the hypervisor did not start: see " + state.log_of("hypervisor")), exit_failed;
}

int shut_down(const State& state) {
    const auto running = toolstack::hypervisor_process(state);
    if (!running) return complain({.err = ECONNREFUSED, .what = "no local hypervisor runs in", .detail = state.folder});
    const int destroyed = destroy(state, {}, true);
    ::kill(running->pid, SIGTERM);
    const auto end = std::chrono::steady_clock::now() + stop_patience;
    while (toolstack::alive(*running) && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(10ms);
    if (toolstack::alive(*running)) return say("the hypervisor does not stop"), exit_failed;
    return destroyed;
}

}  // namespace caisson::command
