// Kills workers of this domain's controllers, one after the other, and says when.
//
// Usage: lab_kills COUNT PAUSE HOLDING...
//
// COUNT times SIGKILL, in turns to the worker that holds a file whose name ends with each HOLDING. The next kill comes
// when that worker has a successor and after up to twice PAUSE milliseconds. Says, a line each:
//     kill WHEN HOLDING      CLOCK_MONOTONIC of this domain, in seconds
//     missed HOLDING         nobody held it for a minute
// Exit code 1: it missed one.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

bool is_worker(const fs::path& process) {
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

// 0: nobody came in time.
pid_t wait_for(const std::string& ending) {
    for (const auto until = Clock::now() + 60s; Clock::now() < until; std::this_thread::sleep_for(5ms))
        if (const pid_t pid = worker_with(ending)) return pid;
    return 0;
}

}  // namespace

int main(int count, char** words) {
    if (count < 4) return std::fprintf(stderr, "usage: %s COUNT PAUSE HOLDING...\n", words[0]), 2;
    const int kills = std::atoi(words[1]), kinds = count - 3;
    std::minstd_rand random(1);
    std::uniform_int_distribution<int> pause(0, 2 * std::atoi(words[2]));
    for (int i = 0; i < kills; ++i) {
        const std::string holding = words[3 + i % kinds];
        const pid_t pid = wait_for(holding);
        if (pid == 0) return std::printf("missed %s\n", holding.c_str()), 1;
        const std::chrono::duration<double> now = Clock::now().time_since_epoch();
        ::kill(pid, SIGKILL);
        std::printf("kill %.6f %s\n", now.count(), holding.c_str());
        std::fflush(stdout);
        std::this_thread::sleep_for(std::chrono::milliseconds(pause(random)));
    }
    for (int i = 0; i < kinds; ++i)
        if (wait_for(words[3 + i]) == 0) return std::printf("missed %s\n", words[3 + i]), 1;
    return 0;
}
