#include "domains/toolstack/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "domains/domain/memory_limit.h"
#include "domains/toolstack/toolstack.h"
#include "ring/escape.h"
#include "ring/log.h"

namespace caisson::toolstack {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t log_limit = 1 << 20;
constexpr auto before_restart = 1s;  // a domain that dies at once must not keep the machine busy

struct Pipe {
    Fd read, write;
};

Result<Pipe> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return host_fault(errno, "pipe");
    return Pipe{.read = Fd(ends[0]), .write = Fd(ends[1])};
}

Fd open_pidfd(pid_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

void kill_process(const Fd& pidfd) { ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0); }

// One life of a domain, from its start to the end of PID 1. Whoever else holds the pipe (nobody should) is not waited
// for.
class Life {
  public:
    Life(const domain::Newborn& process, Fd output, Fd hypervisor, BoundedLog& log, bool echo)
        : process_(process), output_(std::move(output)), hypervisor_(std::move(hypervisor)), log_(log), echo_(echo) {}

    int watch() {
        while (true) {
            pollfd ready[] = {
                {output_.get(), POLLIN, 0}, {process_.pidfd().get(), POLLIN, 0}, {hypervisor_.get(), POLLIN, 0}};
            if (::poll(ready, 3, -1) < 0 && errno != EINTR) break;
            if (ready[0].revents != 0) drain(false);
            if (ready[2].revents != 0) hypervisor_gone();
            if (ready[1].revents != 0) break;
        }
        drain(true);
        std::string rest;
        escape_rest(escape_, "", rest);
        log_.append(rest);
        int status = 0;
        while (::waitpid(process_.pid(), &status, 0) < 0 && errno == EINTR) continue;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    void drain(bool all) {
        std::array<char, 16384> text;
        if (all) ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);
        for (ssize_t got; output_ && (got = ::read(output_.get(), text.data(), text.size())) != -1;) {
            if (got == 0) return output_.reset();
            const std::string_view news(text.data(), static_cast<std::size_t>(got));
            std::string harmless;
            escape(escape_, std::as_bytes(std::span(news)), "", harmless);
            log_.append(harmless);
            if (echo_) (void)!::write(STDOUT_FILENO, news.data(), news.size());
            if (!all) return;
        }
    }

    // A domain without its hypervisor is nothing: Xen's do not survive Xen.
    void hypervisor_gone() {
        kill_process(process_.pidfd());
        hypervisor_.reset();
    }

    const domain::Newborn& process_;
    Fd output_, hypervisor_;
    BoundedLog& log_;
    EscapeState escape_;  // of what the log gets
    bool echo_;
};

struct Ended {
    int code = 1;
    bool again = false;  // the cfg file wants it made again
};

Result<Ended> live_once(const State& state, const DomainConfig& config, BoundedLog& log, const KeeperOptions& options,
                        bool first) {
    Pipe output = TRY(make_pipe());
    Toolstack toolstack = TRY(Toolstack::open(state));
    const auto hypervisor = hypervisor_process(state);
    if (!hypervisor) return host_fault(ECONNREFUSED, "the hypervisor went away");
    auto prepared = TRY(toolstack.prepare(config, output.write.get()));
    output.write.reset();
    const auto memory = domain::MemoryLimit::set(prepared.process.pid(), config.maxmem_mib);
    Life life(prepared.process, std::move(output.read), open_pidfd(hypervisor->pid), log, options.echo);
    if (auto started = prepared.process.start(prepared.plan); !started) {
        kill_process(prepared.process.pidfd());
        (void)toolstack.bury(prepared.record);
        return std::unexpected(started.error());
    }
    const std::string name = config.name + " (domain " + std::to_string(prepared.record.domid) + ")";
    log.note(name + " starts");
    if (!memory && first) log.note("its memory is not bounded: " + memory.error().message());
    if (first) options.born(prepared.record);
    const int code = life.watch();
    const bool wanted = marked_destroyed(state, prepared.record.domid) || !alive(*hypervisor);
    const OnExit then = code > 128 ? config.on_crash : config.on_poweroff;
    (void)toolstack.bury(prepared.record);
    log.note(name + (code > 128 ? " was ended by signal " + std::to_string(code - 128)
                                : " ended with " + std::to_string(code)));
    return Ended{.code = code, .again = !wanted && then == OnExit::restart};
}

// ---- Across the fork of keep_in_background() ----

std::string report_text(const Result<DomainRecord>& born) {
    nlohmann::json json;
    if (born) {
        json = {
            {"domid", born->domid}, {"generation", born->generation}, {"name", born->name}, {"pid", born->init.pid}};
    } else {
        json = {{"fault", static_cast<int>(born.error().fault)},
                {"err", born.error().err},
                {"what", born.error().message()}};
    }
    return json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

Result<DomainRecord> report_from(const std::string& text) {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_discarded()) return host_fault(EPIPE, "the domain's keeper died");
    if (json.contains("what"))
        return std::unexpected(
            Error{.fault = Fault::unsupported, .err = json["err"], .what = "", .detail = json["what"]});
    DomainRecord record;
    record.domid = json["domid"];
    record.generation = json["generation"];
    record.name = json["name"];
    record.init.pid = json["pid"];
    return record;
}

std::string read_all(const Fd& from) {
    std::string text;
    std::array<char, 4096> part;
    for (ssize_t got; (got = ::read(from.get(), part.data(), part.size())) > 0;)
        text.append(part.data(), static_cast<std::size_t>(got));
    return text;
}

[[noreturn]] void background(const State& state, const DomainConfig& config, Fd report) {
    ::setsid();
    ::prctl(PR_SET_NAME, "caisson-keeper");
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int fd = 0; fd <= 2; ++fd) ::dup2(null.get(), fd);
    // Whatever the caller left open is not ours to keep for a domain's life.
    const auto kept = static_cast<unsigned>(report.get());
    if (kept > 3) ::syscall(SYS_close_range, 3, kept - 1, 0);
    ::syscall(SYS_close_range, kept + 1, ~0u, 0);
    if (::chdir("/") != 0) ::_exit(1);
    ::_exit(keep(state, config, {.echo = false, .born = [&](const Result<DomainRecord>& born) {
                                     const std::string text = report_text(born);
                                     (void)!::write(report.get(), text.data(), text.size());
                                     report.reset();
                                 }}));
}

}  // namespace

int keep(const State& state, const DomainConfig& config, const KeeperOptions& options) {
    ::signal(SIGPIPE, SIG_IGN);
    auto log = BoundedLog::open(state.log_of(config.name), log_limit);
    if (!log) return options.born(std::unexpected(log.error())), 1;
    for (bool first = true;; first = false) {
        const auto ended = live_once(state, config, *log, options, first);
        if (!ended) {
            log->note(config.name + " could not be made: " + ended.error().message());
            if (first) options.born(std::unexpected(ended.error()));
            return 1;
        }
        if (!ended->again) return ended->code;
        std::this_thread::sleep_for(before_restart);
    }
}

Result<DomainRecord> keep_in_background(const State& state, const DomainConfig& config) {
    Pipe report = TRY(make_pipe());
    const pid_t keeper = ::fork();
    if (keeper < 0) return host_fault(errno, "fork");
    if (keeper == 0) {
        report.read.reset();
        background(state, config, std::move(report.write));
    }
    report.write.reset();
    return report_from(read_all(report.read));
}

Result<BoundedLog> BoundedLog::open(std::string path, std::uint64_t limit) {
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat status{};
    if (!file || ::fstat(file.get(), &status) != 0) return host_fault(errno, "open", path);
    BoundedLog log(std::move(path), std::move(file), limit);
    log.size_ = static_cast<std::uint64_t>(status.st_size);
    char last = '\n';
    if (status.st_size > 0 && ::pread(log.file_.get(), &last, 1, status.st_size - 1) != 1) last = '\n';
    log.within_line_ = last != '\n';
    return log;
}

void BoundedLog::append(std::string_view text) {
    if (text.size() > limit_) text.remove_prefix(text.size() - limit_);
    if (size_ + text.size() > limit_) {
        std::rename(path_.c_str(), (path_ + ".1").c_str());
        file_.reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
        size_ = 0;
    }
    if (file_ && ::write(file_.get(), text.data(), text.size()) > 0) size_ += text.size();
    if (!text.empty()) within_line_ = text.back() != '\n';
}

void BoundedLog::note(std::string_view text) {
    std::array<char, 32> time{};
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    std::strftime(time.data(), time.size(), "%Y-%m-%dT%H:%M:%SZ", ::gmtime_r(&now, &parts));
    append((within_line_ ? "\n" : "") + std::string(time.data()) + " caisson: " + std::string(text) + "\n");
}

}  // namespace caisson::toolstack
