// An NBD server of a test's own.
//
//     Nbdkit server({"memory", "64M"});
//     if (server.pid < 0) ...                        // skipped: nbdkit is not installed
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temporary.h"

namespace caisson::test {

// A server in the foreground, on a socket in a folder of its own.
struct Nbdkit {
    explicit Nbdkit(std::vector<std::string> plugin) : words{"nbdkit", "-f", "-P", ready, "-U", socket} {
        words.insert(words.end(), plugin.begin(), plugin.end());
        start();
    }
    // Once more after kill().
    void start() {
        ::unlink(socket.c_str());
        ::unlink(ready.c_str());
        std::vector<char*> argv;
        for (auto& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        pid = ::fork();
        if (pid == 0) {
            ::execvp("nbdkit", argv.data());
            ::_exit(127);
        }
        for (int i = 0; i < 1000 && !std::filesystem::exists(ready); ++i) {
            if (::waitpid(pid, nullptr, WNOHANG) == pid) pid = -1;
            if (pid < 0) break;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
    ~Nbdkit() { kill(); }
    void kill() {
        if (pid < 0) return;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        pid = -1;
    }
    TemporaryFolder folder;
    std::string socket = folder / "socket";
    std::string ready = folder / "ready";  // written once it listens; the socket is there a moment before
    std::vector<std::string> words;
    pid_t pid = -1;
};

}  // namespace caisson::test
