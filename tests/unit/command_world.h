// A local hypervisor of one's own, as a person would run it: by the command, in a folder that is removed afterwards.
//
//     CommandWorld world;
//     if (!world.possible()) return;                  // has said WARN("skipped: ...")
//     CHECK(world.run("create x.cfg").code == 0);
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "domains/toolstack/state.h"
#include "tests/support/temporary.h"
#include "tests/support/thread_sanitizer.h"

namespace caisson::test {

class CommandWorld {
  public:
    struct Ran {
        int code = -1;
        std::string out;  // both streams
    };

    explicit CommandWorld(const std::string& options = "--no-console", std::string command = CAISSON_COMMAND)
        : command_(std::move(command)) {
        state_.folder = folder_ / "state";
        const auto started = run("hypervisor --daemon " + options);
        INFO(started.out);
        REQUIRE(started.code == 0);
    }
    ~CommandWorld() {
        if (toolstack::hypervisor_process(state_)) run("shutdown");
    }
    CommandWorld(const CommandWorld&) = delete;

    // Whether this machine lets us make domains at all; says so when not.
    bool possible() {
        if (under_thread_sanitizer) {  // setns(2) lets only a process with one thread into a user namespace
            WARN("skipped: the thread sanitizer's own thread keeps 'caisson exec' out of domains");
            return false;
        }
        const auto made = run("create " + cfg("probe", ""));
        if (made.code == 4) WARN("skipped: this machine does not allow domains: " << made.out);
        if (made.code == 0) run("destroy probe");
        return made.code != 4;
    }

    // `caisson ARGUMENTS`, through a shell.
    Ran run(const std::string& arguments) const {
        return shell(command_ + " --state " + state_.folder + " " + arguments);
    }
    static Ran shell(const std::string& line) {
        Ran ran;
        std::FILE* pipe = ::popen((line + " 2>&1 </dev/null").c_str(), "r");
        REQUIRE(pipe != nullptr);
        std::array<char, 4096> part;
        for (std::size_t got; (got = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
            ran.out.append(part.data(), got);
        const int status = ::pclose(pipe);
        ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        return ran;
    }

    // A cfg file of a domain without a console, and whatever else; its path.
    std::string cfg(const std::string& name, const std::string& more) const {
        const std::string path = folder_ / (name + ".cfg");
        std::ofstream(path) << "name='" << name << "'\nmemory=16\ncaisson_console_backend='none'\n" << more;
        return path;
    }
    nlohmann::json list() const { return nlohmann::json::parse(run("list --json").out); }
    const toolstack::State& state() const { return state_; }
    const std::string& folder() const { return folder_.path(); }

    static std::size_t descriptors(pid_t pid) {
        std::size_t count = 0;
        for ([[maybe_unused]] const auto& entry :
             std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
            ++count;
        return count;
    }

  private:
    std::string command_;
    TemporaryFolder folder_;
    toolstack::State state_;
};

}  // namespace caisson::test
