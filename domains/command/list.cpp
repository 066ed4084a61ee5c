#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "domains/command/command.h"
#include "domains/domain/join.h"
#include "domains/toolstack/toolstack.h"
#include "domains/toolstack/traffic.h"

namespace caisson::command {
namespace {

using toolstack::State;

constexpr const char* clear_screen = "\033[H\033[J";

nlohmann::json as_json(const toolstack::ListedDomain& domain) {
    const auto& use = domain.usage;
    nlohmann::json json{{"id", use.id.raw},   {"name", domain.name()},          {"generation", use.generation},
                        {"dying", use.dying}, {"grants", use.grants},           {"mappings", use.mappings},
                        {"ports", use.ports}, {"connections", use.connections}, {"quarantined", use.quarantined}};
    if (domain.record) {
        json["uuid"] = domain.record->uuid;
        json["type"] = domain.record->type;
        json["memory"] = domain.record->memory_mib;
        json["vcpus"] = domain.record->vcpus;
        json["driver_domain"] = domain.record->driver_domain;
        json["pid"] = domain.record->init.pid;
    }
    return json;
}

void print_row(const toolstack::ListedDomain& domain) {
    const auto& record = domain.record;
    fmt::print("{:<24} {:>4} {:>6} {:>6}  {:<8} {:>7} {:>7} {:>6}\n", domain.name(), domain.usage.id.raw,
               record ? std::to_string(record->memory_mib) : "-", record ? std::to_string(record->vcpus) : "-",
               domain.usage.dying ? "dying" : "running", domain.usage.grants, domain.usage.mappings,
               domain.usage.ports);
}

}  // namespace

int list(const State& state, const ListOptions& options) {
    auto toolstack = toolstack::Toolstack::open(state);
    if (!toolstack) return options.names ? exit_no_hypervisor : complain(toolstack.error());
    const auto domains = toolstack->list();
    if (!domains) return complain(domains.error());
    if (options.json) {
        nlohmann::json json = nlohmann::json::array();
        for (const auto& domain : *domains) json.push_back(as_json(domain));
        fmt::print("{}\n", json.dump(1));
        return exit_ok;
    }
    if (options.names) {
        for (const auto& domain : *domains)
            if (domain.record) fmt::print("{}\n", domain.name());
        return exit_ok;
    }
    fmt::print("{:<24} {:>4} {:>6} {:>6}  {:<8} {:>7} {:>7} {:>6}\n", "Name", "ID", "Mem", "VCPUs", "State", "Grants",
               "Mapped", "Ports");
    for (const auto& domain : *domains) print_row(domain);
    return exit_ok;
}

int top(const State& state, const TopOptions& options) {
    auto toolstack = toolstack::Toolstack::open(state);
    if (!toolstack) return complain(toolstack.error());
    std::vector<toolstack::DomainTraffic> before;
    const bool screen = ::isatty(STDOUT_FILENO) == 1;
    while (true) {
        auto now = toolstack::traffic(*toolstack);
        if (!now) return complain(now.error());
        if (options.json) return fmt::print("{}\n", toolstack::traffic_json(*now)), exit_ok;
        fmt::print("{}{}", screen && !options.once ? clear_screen : "",
                   toolstack::traffic_table(*now, before, options.delay));
        std::fflush(stdout);
        if (options.once) return exit_ok;
        before = std::move(*now);
        std::this_thread::sleep_for(std::chrono::duration<double>(options.delay));
        if (!screen) fmt::print("\n");
    }
}

int log(const State& state, const std::string& domain) {
    if (!toolstack::domain_name_valid(domain)) return say("log: needs the domain's name"), exit_usage;
    const std::string path = state.log_of(domain);
    bool any = false;
    for (const auto& file : {path + ".1", path}) {
        const Fd in(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
        std::array<char, 8192> text;
        for (ssize_t got; in && (got = ::read(in.get(), text.data(), text.size())) > 0; any = true)
            std::fwrite(text.data(), 1, static_cast<std::size_t>(got), stdout);
    }
    return any || ::access(path.c_str(), F_OK) == 0
               ? exit_ok
               : complain({.err = ESRCH, .what = "no log of a domain named", .detail = domain});
}

int exec(const State& state, const std::string& name, const std::vector<std::string>& command) {
    auto toolstack = toolstack::Toolstack::open(state);
    if (!toolstack) return complain(toolstack.error());
    const auto domain = toolstack->find(name);
    if (!domain) return complain(domain.error());
    if (!domain->record) return say("exec: " + name + " was not made by this toolstack"), exit_failed;
    const Fd init(static_cast<int>(::syscall(SYS_pidfd_open, domain->record->init.pid, 0)));
    if (!init || !alive(domain->record->init))
        return complain({.err = ESRCH, .what = "the domain is dead:", .detail = name});
    domain::JoinOptions options{
        .command = command, .terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1, .environment = {}};
    if (options.command.empty()) options.command = {"/bin/bash"};
    const char* terminal = std::getenv("TERM");
    options.environment.push_back(std::string("TERM=") + (terminal != nullptr ? terminal : "dumb"));
    const auto code = domain::run_inside(init, options);
    return code ? *code : complain(code.error());
}

}  // namespace caisson::command
