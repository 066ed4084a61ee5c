// caisson: the command. Every subcommand has --help; --help of the whole says what the exit codes mean.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>

#include "domains/command/command.h"
#include "domains/toolstack/state.h"
#include "ring/log.h"

using namespace caisson;
using namespace caisson::command;

namespace {

constexpr const char* summary =
    "Paravirtual split drivers for Xen, in user space; and a local hypervisor, so that they run without Xen.";
constexpr const char* exit_codes =
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no such domain; 4 the machine lacks something (the message says "
    "what,\n"
    "and how to get it); 5 no hypervisor runs. 'exec' and 'create --foreground' end with the exit code of the "
    "command,\n"
    "or 128 + N when signal N ended it.";

// Fills in what the chosen subcommand will do; CLI11 calls it after everything is parsed.
struct Line {
    CLI::App app{summary, "caisson"};
    std::string state_folder;
    int code = exit_ok;

    HypervisorOptions hypervisor_options;
    CreateOptions create_options;
    AttachOptions attach_options;
    DetachOptions detach_options;
    ListOptions list_options;
    TopOptions top_options;
    ConsoleOptions console_options;
    SuperviseOptions supervise_options;
    RestartOptions restart_options;
    DoctorOptions doctor_options;
    std::vector<std::string> names, words;
    std::string name, vdev, shell;
    bool all = false;

    // A subcommand that works on a hypervisor's state.
    template <class Run>
    void on_state(CLI::App* command, Run run) {
        command->callback([this, run] {
            const auto state = toolstack::find_state(state_folder);
            code = state ? run(*state) : complain(state.error());
        });
    }

    void domains() {
        auto* hypervisor_command = app.add_subcommand("hypervisor", "Run the local hypervisor, in the foreground");
        hypervisor_command->add_flag("--daemon", hypervisor_options.background,
                                     "Return when it is ready, leave it running");
        hypervisor_command->add_flag_callback(
            "--no-console", [this] { hypervisor_options.console = false; },
            "Do not serve consoles from Domain-0 (they need a driver domain then)");
        on_state(hypervisor_command, [this](const auto& state) { return hypervisor(state, hypervisor_options); });

        auto* shutdown_command = app.add_subcommand("shutdown", "Destroy all domains and stop the local hypervisor");
        on_state(shutdown_command, [](const auto& state) { return shut_down(state); });

        auto* create_command = app.add_subcommand("create", "Make a domain from an xl.cfg file");
        create_command->add_option("FILE", create_options.file, "The file; keys are those of xl.cfg(5)")->required();
        create_command->add_option("KEY=VALUE", create_options.settings, "Settings that override the file's");
        create_command->add_flag("--wait", create_options.wait, "Return when every device is connected");
        create_command->add_flag("-F,--foreground", create_options.foreground,
                                 "Stay, show what it prints (unless that goes to a console), end with its exit code");
        create_command->add_flag("--start", create_options.start, "Start a hypervisor first, if none runs");
        create_command->add_flag("-n,--check", create_options.check,
                                 "Read the file and say what is wrong; make nothing");
        create_command->callback([this] {
            const auto state = toolstack::find_state(state_folder);
            if (!state && !create_options.check) return void(code = complain(state.error()));
            code = create(state.value_or(toolstack::State{}), create_options);  // a check needs none
        });

        auto* destroy_command = app.add_subcommand("destroy", "End domains at once, as pulling the plug does");
        destroy_command->add_option("DOMAIN", names, "Names or ids");
        destroy_command->add_flag("--all", all, "All of them");
        on_state(destroy_command, [this](const auto& state) { return destroy(state, names, all); });

        auto* list_command = app.add_subcommand("list", "Show the domains");
        list_command->add_flag("--json", list_options.json, "As JSON");
        list_command->add_flag("--names", list_options.names, "Only the names, for scripts");
        on_state(list_command, [this](const auto& state) { return list(state, list_options); });
    }

    void disks() {
        const auto classes = CLI::IsMember({"block"});
        auto* attach_command =
            app.add_subcommand("attach", "Give a disk to a domain that runs: attach DOMAIN block DISK");
        attach_command->add_option("DOMAIN", attach_options.domain, "Name or id")->required();
        attach_command->add_option("CLASS", attach_options.device_class, "block")->required()->check(classes);
        attach_command->add_option("DISK", attach_options.spec, "As in disk= of xl.cfg(5)")->required();
        attach_command->add_option("KEY=VALUE", attach_options.more, "As in caisson_disk=: rate-iops=1000 ...");
        attach_command->add_flag("--wait", attach_options.wait, "Return when it is connected");
        on_state(attach_command, [this](const auto& state) { return attach(state, attach_options); });

        auto* detach_command = app.add_subcommand("detach", "Take a disk from a domain: detach DOMAIN block xvdb");
        detach_command->add_option("DOMAIN", detach_options.domain, "Name or id")->required();
        detach_command->add_option("CLASS", detach_options.device_class, "block")->required()->check(classes);
        detach_command->add_option("VDEV", detach_options.vdev, "Its name, or its number")->required();
        detach_command->add_flag("--force", detach_options.force, "At once, without waiting for the guest to let go");
        on_state(detach_command, [this](const auto& state) { return detach(state, detach_options); });

        auto* resize_command = app.add_subcommand("resize", "Tell a domain that a disk's target has another size now");
        resize_command->add_option("DOMAIN", name, "Name or id")->required();
        resize_command->add_option("VDEV", vdev, "The disk's name, or its number")->required();
        on_state(resize_command, [this](const auto& state) { return resize(state, name, vdev); });
    }

    void service_vms() {
        auto* supervise_command = app.add_subcommand(
            "supervise",
            "Keep service VMs running, and give their devices to their successors (in the control domain)");
        supervise_command->add_option("FILE", supervise_options.files, "xl.cfg files, those first that others need")
            ->required()
            ->check(CLI::ExistingFile);
        supervise_command->add_option("--start", supervise_options.start_seconds, "Seconds that one has to get ready")
            ->check(CLI::Range(1.0, 3600.0))
            ->capture_default_str();
        supervise_command
            ->add_option("--heart", supervise_options.heart_seconds, "Seconds that its heart may stand still")
            ->check(CLI::Range(3.0, 3600.0))
            ->capture_default_str();
        supervise_command
            ->add_option("--steady", supervise_options.steady_seconds,
                         "Seconds that it has to be ready for its end to be no part of a crash loop")
            ->check(CLI::Range(0.0, 3600.0))
            ->capture_default_str();
        on_state(supervise_command, [this](const auto& state) { return supervise(state, supervise_options); });

        auto* restart_command = app.add_subcommand("restart", "Replace a service VM that is supervised");
        restart_command->add_option("DOMAIN", restart_options.domain, "Its name")->required();
        restart_command->add_option("KEY=VALUE", restart_options.settings,
                                    "In place of its file's; kept if it gets ready with them, else taken back");
        restart_command->add_flag("--wait", restart_options.wait, "Return when it is ready again");
        on_state(restart_command, [this](const auto& state) { return restart(state, restart_options); });
    }

    void looking_in() {
        auto* console_command = app.add_subcommand("console", "Attach to a domain's console; leave with Ctrl-]");
        console_command->add_option("DOMAIN", console_options.domain, "Name or id")->required();
        console_command->add_option("-n,--number", console_options.channel, "Which: a number, or a channel's name")
            ->capture_default_str();
        on_state(console_command, [this](const auto& state) { return console(state, console_options); });

        auto* exec_command = app.add_subcommand("exec", "Run a command inside a domain: exec DOMAIN COMMAND...");
        exec_command->add_option("DOMAIN", name, "Name or id")->required();
        exec_command->add_option("COMMAND", words, "With its arguments, options too; a shell if there is none");
        on_state(exec_command, [this](const auto& state) { return exec(state, name, words); });

        auto* log_command =
            app.add_subcommand("log", "Print what a domain's own services and console-less programs wrote");
        log_command->add_option("DOMAIN", name, "Its name; it may be dead")->required();
        on_state(log_command, [this](const auto& state) { return log(state, name); });

        auto* top_command = app.add_subcommand("top", "Show what the devices of all domains carry");
        top_command->add_flag("--once", top_options.once, "One table, totals only");
        top_command->add_flag("--json", top_options.json, "One sample, as JSON");
        top_command->add_option("-d,--delay", top_options.delay, "Seconds between tables")
            ->check(CLI::Range(0.1, 3600.0))
            ->capture_default_str();
        on_state(top_command, [this](const auto& state) { return top(state, top_options); });

        auto* doctor_command = app.add_subcommand("doctor", "Say what this machine lacks, and what would work on it");
        doctor_command
            ->add_option("PART", doctor_options.parts, "local, driver-domain, guest, control, passthrough; none: all")
            ->check(CLI::IsMember({"local", "driver-domain", "guest", "control", "passthrough"}));
        doctor_command->add_flag("--json", doctor_options.json, "As JSON");
        doctor_command->callback([this] { code = doctor(doctor_options); });

        auto* completion_command =
            app.add_subcommand("completion", "Print a completion script: source <(caisson completion bash)");
        completion_command->add_option("SHELL", shell, "bash or zsh")
            ->required()
            ->check(CLI::IsMember({"bash", "zsh"}));
        completion_command->callback([this] { std::cout << completion(shell); });

        auto* help_command = app.add_subcommand("help", "Say what there is, or what a subcommand takes");
        help_command->add_option("SUBCOMMAND", name, "Its name");
        help_command->callback([this] { code = help(); });
    }

    int help() {
        const auto formatter = app.get_formatter();
        if (name.empty())
            return std::cout << formatter->make_help(&app, "caisson", CLI::AppFormatMode::Normal), exit_ok;
        const auto found = app.get_subcommands([this](const CLI::App* one) { return one->get_name() == name; });
        if (found.empty()) return say(unknown(name)), exit_usage;
        std::cout << formatter->make_help(found.front(), "caisson " + name, CLI::AppFormatMode::Normal);
        return exit_ok;
    }

    std::string what_is_wrong(const CLI::ParseError& wrong) const {
        const auto chosen = app.get_subcommands();
        const auto left = app.remaining();
        if (chosen.empty() && !left.empty()) return unknown(left.front());
        if (chosen.empty()) return std::string(wrong.what()) + "\n'caisson help' says what there is";
        const std::string& command = chosen.front()->get_name();
        return command + ": " + escaped(wrong.what()) + "\n'caisson help " + command + "' says what it takes";
    }

    // What to say about a first word that is no subcommand and no option.
    std::string unknown(const std::string& word) const {
        if (word.starts_with("-")) return "'" + escaped(word) + "' is no option; 'caisson help' says which there are";
        std::string known;
        for (const auto* command : app.get_subcommands([](const CLI::App* one) { return !one->get_group().empty(); }))
            known += (known.empty() ? "" : ", ") + command->get_name();
        return "'" + escaped(word) + "' is no subcommand; there are " + known + "\n'caisson help' says what they do";
    }

    void inside() {
        const auto add = [this](const char* word, const char* what, int (*run)()) {
            auto* command = app.add_subcommand(word, what)->group("Inside a domain");
            command->callback([this, run] { code = run(); });
            return command;
        };
        add("devd", "Serve the backends of this domain (a driver domain)", devd);
        add("frontd", "Drive the frontends of this domain", frontd);
        add("worker", "Serve one device (started by devd and frontd)", worker)->group("");
        add("domain-init", "PID 1 of a local domain (started by create)", domain_init)->group("");
    }
};

// What follows the domain's name and is no option of ours is the guest's command, with all its options, as for ssh:
// "exec guest ls -l" becomes "exec guest -- ls -l".
std::vector<std::string> with_command_apart(std::vector<std::string> arguments) {
    constexpr std::size_t words_before_command = 2;  // "exec", the domain
    std::size_t words = 0;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        if (arguments[i] == "--") return arguments;
        if (arguments[i] == "--state") {
            ++i;  // and its value
        } else if (!arguments[i].starts_with("-")) {
            if (words == 0 && arguments[i] != "exec") return arguments;
            if (words++ < words_before_command) continue;
            arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(i), "--");
            return arguments;
        }
    }
    return arguments;
}

}  // namespace

int main(int argc, char** argv) {
    Line line;
    line.app.set_version_flag("--version", "caisson " CAISSON_VERSION, "Say which version this is, and exit");
    line.app.footer(exit_codes);
    line.app.add_option(
        "--state", line.state_folder,
        "The hypervisor's folder (default: $CAISSON_STATE, $XDG_RUNTIME_DIR/caisson, as root /run/caisson)");
    line.app.require_subcommand(1);
    line.domains();
    line.disks();
    line.service_vms();
    line.looking_in();
    line.inside();
    for (auto* command : line.app.get_subcommands([](CLI::App*) { return true; })) command->fallthrough();
    auto arguments = with_command_apart({argv + 1, argv + argc});
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    try {
        line.app.parse(std::move(arguments));
    } catch (const CLI::ParseError& wrong) {
        if (wrong.get_exit_code() == 0) return line.app.exit(wrong), exit_ok;  // --help, --version
        return say(line.what_is_wrong(wrong)), exit_usage;
    }
    return line.code;
}
