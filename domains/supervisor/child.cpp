#include "domains/supervisor/child.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "domains/domain/process.h"

namespace caisson::supervisor {

struct Child::Running {
    pid_t pid = 0;
    Fd process, output;
    std::string line, last_words;
    std::function<void(const Ended&)> ended;
    Loop::Handle hears, waits, limit;

    void hear() {
        std::array<char, 4096> part;
        for (ssize_t got; (got = ::read(output.get(), part.data(), part.size())) != -1;) {
            if (got == 0) return hears.reset();
            take({part.data(), static_cast<std::size_t>(got)});
        }
    }
    void take(std::string_view text) {
        (void)!::write(STDERR_FILENO, text.data(), text.size());
        for (const char c : text) {
            if (c != '\n' && line.size() < 1000) line += c;
            if (c == '\n' && !line.empty()) last_words = std::exchange(line, {});
        }
    }
    void end() {
        int status = 0;
        if (::waitpid(pid, &status, WNOHANG) != pid) return;
        hear();
        for (auto* handle : {&hears, &waits, &limit}) handle->reset();
        const auto told = std::move(ended);
        told({.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
              .last_words = line.empty() ? last_words : line});
    }
};

Result<Child> Child::start(Loop& loop, const std::vector<std::string>& arguments, Loop::Clock::duration patience,
                           std::function<void(const Ended&)> ended) {
    int ends[2];
    if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return host_fault(errno, "pipe");
    auto running = std::make_shared<Running>();
    running->output.reset(ends[0]);
    const Fd theirs(ends[1]);
    if (::fcntl(theirs.get(), F_SETFL, 0) != 0) return host_fault(errno, "pipe");
    running->pid = TRY(domain::spawn(arguments, {.input = -1, .output = theirs.get(), .terminal = {}}));
    running->process.reset(static_cast<int>(::syscall(SYS_pidfd_open, running->pid, 0)));
    if (!running->process) return host_fault(errno, "pidfd");
    running->ended = std::move(ended);
    // Whoever drops the Child while it runs hears of it no more; the process goes on.
    running->hears = loop.watch(running->output.get(), POLLIN, [at = running.get()](short) { at->hear(); });
    running->waits = loop.watch(running->process.get(), POLLIN, [keep = std::weak_ptr(running)](short) {
        if (const auto at = keep.lock()) at->end();
    });
    running->limit = loop.after(patience, [pid = running->pid] { ::kill(pid, SIGKILL); });
    return Child(std::move(running));
}

}  // namespace caisson::supervisor
