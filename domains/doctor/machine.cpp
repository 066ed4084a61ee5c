#include "domains/doctor/machine.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "ring/loop.h"

namespace caisson::doctor {
namespace {

// In a child: whoever has user namespaces of its own keeps them.
int try_namespaces() {
    const pid_t child = ::fork();
    if (child < 0) return errno;
    if (child == 0) ::_exit(::unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET) == 0 ? 0 : errno);
    int status = 0;
    if (::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return EPERM;
    return WEXITSTATUS(status);
}

int try_landlock() {
    constexpr unsigned ask_version = 1;
    return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, ask_version) >= 0 ? 0 : errno;
}

int try_io_uring() {
    const auto loop = Loop::make();
    return loop ? 0 : loop.error().err;
}

std::string plain(std::string name) {
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

// Lines like "kernel/drivers/net/tun.ko.xz: kernel/...".
bool lists(const std::string& file, const std::string& module) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        const std::string path = line.substr(0, line.find(':'));
        const std::string name = path.substr(path.rfind('/') + 1);
        if (plain(name.substr(0, name.find('.'))) == module) return true;
    }
    return false;
}

}  // namespace

bool Machine::has(const std::string& path) const { return ::access((root + path).c_str(), F_OK) == 0; }
bool Machine::usable(const std::string& path) const { return ::access((root + path).c_str(), R_OK | W_OK) == 0; }

std::string Machine::line(const std::string& path) const {
    std::ifstream file(root + path);
    std::string text;
    std::getline(file, text);
    return text;
}

std::vector<std::string> Machine::entries(const std::string& folder) const {
    std::vector<std::string> names;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(root + folder, none))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

bool Machine::program(const std::string& name) const {
    for (const char* folder : {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"})
        if (::access((root + folder + name).c_str(), X_OK) == 0) return true;
    return false;
}

Machine::Module Machine::module(const std::string& name) const {
    const std::string wanted = plain(name), modules = "/lib/modules/" + release + "/";
    if (has("/sys/module/" + wanted) || lists(root + modules + "modules.builtin", wanted)) return Module::there;
    return lists(root + modules + "modules.dep", wanted) ? Module::loadable : Module::lacking;
}

Machine this_machine() {
    utsname names{};
    ::uname(&names);
    return {.root = {},
            .release = names.release,
            .user = ::geteuid(),
            .io_uring = try_io_uring,
            .namespaces = try_namespaces,
            .landlock = try_landlock};
}

}  // namespace caisson::doctor
