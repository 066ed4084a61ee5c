// The subcommands of `caisson`: plain functions over plain options; main.cpp turns arguments into them.
//
// Each returns the exit code of the process. What it has to say to a person goes to standard error, what it was asked
// for to standard output.
#pragma once

#include <string>
#include <vector>

#include "domains/toolstack/state.h"
#include "protocols/words.h"

namespace caisson::command {

// The numbers are a promise to scripts, printed by `caisson --help`.
enum Exit : int {
    exit_ok = 0,
    exit_failed = 1,
    exit_usage = 2,
    exit_no_such_domain = 3,
    exit_machine_lacks = 4,  // namespaces, /dev/net/tun, io_uring, a program
    exit_no_hypervisor = 5,
};

// Says the error, as "caisson: ...", and chooses its number.
int complain(const Error& error);
void say(const std::string& text);

struct HypervisorOptions {
    bool background = false;
    bool console = true;  // serve the consoles of domains whose cfg file names no backend for them
};
int hypervisor(const toolstack::State& state, const HypervisorOptions& options);
int shut_down(const toolstack::State& state);

struct CreateOptions {
    std::string file;
    std::vector<std::string> settings;  // "memory=64"
    bool wait = false;                  // until every device is connected
    bool foreground = false;
    bool start = false;  // a hypervisor, if none runs
    bool check = false;  // read the file, make nothing
};
int create(const toolstack::State& state, const CreateOptions& options);
int destroy(const toolstack::State& state, const std::vector<std::string>& domains, bool all);

struct AttachOptions {
    std::string domain;
    std::string device_class;       // "block"
    std::string spec;               // as in disk=
    std::vector<std::string> more;  // "rate-iops=100", as in caisson_disk=
    bool wait = false;              // until it is connected
};
struct DetachOptions {
    std::string domain, device_class, vdev;
    bool force = false;
};
int attach(const toolstack::State& state, const AttachOptions& options);
int detach(const toolstack::State& state, const DetachOptions& options);
int resize(const toolstack::State& state, const std::string& domain, const std::string& vdev);

struct SuperviseOptions {
    std::vector<std::string> files;
    double start_seconds = 60, heart_seconds = 10, steady_seconds = 60;
};
int supervise(const toolstack::State& state, const SuperviseOptions& options);

struct RestartOptions {
    std::string domain;
    std::vector<std::string> settings;  // "ramdisk='/boot/new'"
    bool wait = false;                  // until it is ready again
};
int restart(const toolstack::State& state, const RestartOptions& options);

struct ListOptions {
    bool json = false, names = false;
};
int list(const toolstack::State& state, const ListOptions& options);

struct TopOptions {
    bool once = false, json = false;
    double delay = 1;
};
int top(const toolstack::State& state, const TopOptions& options);

int exec(const toolstack::State& state, const std::string& domain, const std::vector<std::string>& command);
int log(const toolstack::State& state, const std::string& domain);

struct ConsoleOptions {
    std::string domain;
    std::string channel = "0";  // number or name
};
int console(const toolstack::State& state, const ConsoleOptions& options);

struct DoctorOptions {
    std::vector<std::string> parts;  // none: all
    bool json = false;
};
int doctor(const DoctorOptions& options);

// Inside a domain.
int devd();
int frontd();
int worker();
int domain_init();

// The text of a completion script; empty for a shell that has none.
std::string completion(const std::string& shell);

}  // namespace caisson::command
