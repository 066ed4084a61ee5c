// The command: exit codes, help, completion, what it says when something is missing.
#include <catch2/catch.hpp>

#include "tests/support/temporary.h"
#include "tests/unit/command_world.h"

using caisson::test::CommandWorld;
using caisson::test::TemporaryFolder;

namespace {

CommandWorld::Ran caisson_command(const std::string& arguments) {
    return CommandWorld::shell(std::string(CAISSON_COMMAND) + " " + arguments);
}

}  // namespace

TEST_CASE("Help is everywhere and says what the exit codes mean") {
    const auto help = caisson_command("--help");
    CHECK(help.code == 0);
    CHECK_THAT(help.out, Catch::Contains("3 no such domain"));
    for (const char* command : {"hypervisor", "shutdown", "create", "destroy", "list", "console", "exec", "log", "top",
                                "doctor", "completion", "devd", "frontd"}) {
        INFO(command);
        CHECK_THAT(help.out, Catch::Contains(command));
        CHECK(caisson_command(std::string(command) + " --help").code == 0);
    }
}

TEST_CASE("Wrong usage ends with 2") {
    CHECK(caisson_command("").code == 2);
    CHECK(caisson_command("fly").code == 2);
    CHECK(caisson_command("create").code == 2);
    CHECK(caisson_command("completion fish").code == 2);
    CHECK(caisson_command("top --delay soon").code == 2);
}

TEST_CASE("A subcommand that there is not is named, beside those that there are") {
    const auto wrong = caisson_command("--state /tmp nonsense --fast");
    CHECK(wrong.code == 2);
    CHECK_THAT(wrong.out, Catch::Contains("'nonsense' is no subcommand; there are hypervisor, shutdown, create"));
    CHECK(wrong.out.find("domain-init") == wrong.out.npos);
    CHECK_THAT(caisson_command("help nonsense").out, Catch::Contains("'nonsense' is no subcommand"));
    CHECK(caisson_command("help nonsense").code == 2);
    CHECK_THAT(caisson_command("--nonsense").out, Catch::Contains("'--nonsense' is no option"));
}

TEST_CASE("Help is a subcommand, too, and the version is asked for as everywhere") {
    CHECK(caisson_command("help").code == 0);
    CHECK(caisson_command("help").out == caisson_command("--help").out);
    CHECK(caisson_command("help create").out == caisson_command("create --help").out);
    const auto version = caisson_command("--version");
    CHECK(version.code == 0);
    CHECK_THAT(version.out, Catch::StartsWith("caisson ") && Catch::Contains("."));
    CHECK(caisson_command("hypervisor --help").out.find('{') == std::string::npos);
}

TEST_CASE("Without a hypervisor the command says how to start one, and ends with 5") {
    const auto list = caisson_command("--state /nonexistent/caisson list");
    CHECK(list.code == 5);
    CHECK_THAT(list.out, Catch::Contains("caisson hypervisor --daemon"));
}

TEST_CASE("The completion scripts are scripts") {
    CHECK(CommandWorld::shell(std::string(CAISSON_COMMAND) + " completion bash >/dev/null").code == 0);
    CHECK_THAT(caisson_command("completion zsh").out, Catch::Contains("bashcompinit"));
    // What would be offered for the last of the words.
    const auto offered = [](const std::string& words) {
        return CommandWorld::shell(std::string("bash -c 'source <(") + CAISSON_COMMAND +
                                   " completion bash); COMP_WORDS=(" + words +
                                   "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _caisson; echo ${COMPREPLY[@]}'")
            .out;
    };
    CHECK(offered("caisson cre") == "create\n");
    CHECK(offered("caisson console --n") == "--number\n");
    CHECK(offered("caisson --state /nonexistent hyp") == "hypervisor\n");
    CHECK(offered("caisson --state=/nonexistent list --j") == "--json\n");
    CHECK(offered("caisson list --state /nonexistent --n") == "--names\n");
    CHECK(offered("caisson --state /us") == "/usr\n");
    CHECK(offered("caisson help cre") == "create\n");
}

TEST_CASE("A file is checked without making anything") {
    CHECK(caisson_command(std::string("create --check ") + CAISSON_SOURCE + "/domains/demo/guest.cfg").code == 0);
    const auto wrong =
        caisson_command(std::string("create --check ") + CAISSON_SOURCE + "/domains/demo/guest.cfg memory=\"'none'\"");
    CHECK(wrong.code == 1);
    CHECK_THAT(wrong.out, Catch::Contains("memory: 'none' is not a number"));
    CHECK(caisson_command("create --check /nonexistent.cfg").code == 1);
}

TEST_CASE("The demo's files hold no key that is unknown or unused") {
    for (const char* name : {"guest", "sys-console", "sys-firewall", "sys-net"}) {
        const auto checked =
            caisson_command(std::string("create --check ") + CAISSON_SOURCE + "/domains/demo/" + name + ".cfg");
        INFO(name);
        CHECK(checked.code == 0);
        CHECK(checked.out.empty());
    }
}

TEST_CASE("One state folder has one hypervisor, and what it lacks is said with the right code") {
    CommandWorld world;
    CHECK(world.run("hypervisor --daemon").code == 1);
    CHECK(world.run("list").code == 0);
    CHECK(world.run("destroy ghost").code == 3);
    CHECK(world.run("exec ghost -- true").code == 3);
    CHECK(world.run("console ghost").code == 3);
    CHECK(world.run("log ghost").code == 3);
    CHECK(world.run("log ghost").out.find("No such process") == std::string::npos);
    CHECK_THAT(world.run("console ghost").out, Catch::Contains("'caisson list' shows the domains that run"));
    CHECK(world.run("destroy 0").code == 1);
    CHECK(world.run("destroy").code == 2);
    CHECK(world.run("top --once").code == 0);
    CHECK(nlohmann::json::parse(world.run("top --json").out)[0]["bytes_in"] == 0);
    CHECK(world.run("shutdown").code == 0);
    CHECK(world.run("shutdown").code == 5);
    CHECK(world.run("list").code == 5);
}

TEST_CASE("A state folder that others may enter is refused") {
    const TemporaryFolder folder;
    std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
    const auto refused = caisson_command("--state " + folder.path() + " hypervisor --daemon");
    CHECK(refused.code == 1);
    CHECK_THAT(refused.out, Catch::Contains("chmod 700"));
}
