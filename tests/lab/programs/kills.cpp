// Kills workers of this domain's controllers again and again, and says when.
//
// Usage: lab_kills COUNT PAUSE HOLDING=SHOWS...
//
// For each HOLDING, beside the others: COUNT times SIGKILL to the worker that holds a file whose name ends so, up to
// twice PAUSE milliseconds after it has served: then SHOWS has changed, a counter in /sys or when a file was last
// written. Says, a line each:
//     kill WHEN HOLDING      CLOCK_MONOTONIC of this domain, in seconds
//     missed HOLDING         nobody held it, or served, for a minute
// Exit code 1: it missed one.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

bool is_worker(const fs::path& process) {
    static std::set<std::string> others;  // the kernel's threads: most of what there is. Nobody's exec looks like one
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    if (others.contains(process)) return false;
    char byte;
    if (::readlink((process / "exe").c_str(), &byte, 1) < 0 && errno == ENOENT) return others.insert(process), false;
    std::ifstream file(process / "cmdline");
    std::string program, command;
    return std::getline(file, program, '\0') && std::getline(file, command, '\0') && command == "worker";
}

bool holds(const fs::path& process, const std::string& ending) {
    std::error_code gone;
    for (fs::directory_iterator at(process / "fd", gone), end; !gone && at != end; at.increment(gone)) {
        std::error_code closed;
        if (fs::read_symlink(*at, closed).string().ends_with(ending)) return true;
    }
    return false;
}

pid_t worker_with(const std::string& ending) {
    std::error_code gone;
    for (fs::directory_iterator at("/proc", gone), end; !gone && at != end; at.increment(gone)) {
        const int pid = std::atoi(at->path().filename().c_str());
        if (pid > 0 && is_worker(*at) && holds(*at, ending)) return pid;
    }
    return 0;
}

// 0: nobody came in time. A dead worker keeps its number until it is reaped, and holds nothing.
pid_t wait_for(const std::string& ending) {
    for (const auto until = Clock::now() + 60s; Clock::now() < until; std::this_thread::sleep_for(20ms))
        if (const pid_t pid = worker_with(ending)) return pid;
    return 0;
}

// What changes when a worker serves: a counter of the kernel's, or else when the file was last written.
std::string sign(const std::string& path) {
    if (path.starts_with("/sys/")) {
        std::string text;
        std::ifstream(path) >> text;
        return text;
    }
    struct stat about{};
    (void)::stat(path.c_str(), &about);
    return std::to_string(about.st_mtim.tv_sec) + "." + std::to_string(about.st_mtim.tv_nsec);
}

struct Prey {
    std::string holding, shows;
};

// Every fifth one is killed whether it came to serve or not: that may be in the middle of taking over.
bool serves(const Prey& prey, int number) {
    if (number % 5 == 4) return true;
    const std::string before = sign(prey.shows);
    for (const auto until = Clock::now() + 60s; Clock::now() < until; std::this_thread::sleep_for(20ms))
        if (sign(prey.shows) != before) return true;
    return false;
}

// False: nobody came, or nobody served.
bool kill_some(int kills, int pause, const Prey& prey, unsigned seed) {
    std::minstd_rand random(seed);
    std::uniform_int_distribution<int> pauses(0, 2 * pause);
    for (int i = 0; i <= kills; ++i) {
        if (wait_for(prey.holding) == 0 || !serves(prey, i == kills ? 0 : i))
            return std::printf("missed %s\n", prey.holding.c_str()), false;
        if (i == kills) break;  // the last one's successor serves, too
        std::this_thread::sleep_for(std::chrono::milliseconds(pauses(random)));
        const pid_t pid = wait_for(prey.holding);
        const std::chrono::duration<double> now = Clock::now().time_since_epoch();
        if (pid == 0) return std::printf("missed %s\n", prey.holding.c_str()), false;
        ::kill(pid, SIGKILL);
        std::printf("kill %.6f %s\n", now.count(), prey.holding.c_str());
    }
    return true;
}

}  // namespace

int main(int count, char** words) {
    if (count < 4) return std::fprintf(stderr, "usage: %s COUNT PAUSE HOLDING=SHOWS...\n", words[0]), 2;
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::atomic<bool> good = true;
    {
        std::vector<std::jthread> threads;
        for (int i = 3; i < count; ++i)
            threads.emplace_back([&, i] {
                const std::string word = words[i];
                const auto middle = word.find('=');
                const Prey prey{word.substr(0, middle), middle == word.npos ? "" : word.substr(middle + 1)};
                if (!kill_some(std::atoi(words[1]), std::atoi(words[2]), prey, static_cast<unsigned>(i))) good = false;
            });
    }
    return good ? 0 : 1;
}
