#include "domains/command/command.h"

namespace caisson::command {
namespace {

// Subcommands and domains are asked for at completion time, so that the script never lags behind the program.
constexpr const char* bash = R"sh(_caisson() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "hypervisor shutdown create destroy list console exec log top completion devd frontd --state --help" -- "$word"))
        return
    fi
    case $command in
        create) COMPREPLY=($(compgen -W "--wait --foreground --start --check --help" -- "$word") $(compgen -f -X '!*.cfg' -- "$word") $(compgen -d -- "$word")) ;;
        destroy) COMPREPLY=($(compgen -W "--all --help $(caisson list --names 2>/dev/null)" -- "$word")) ;
;
        console | log) COMPREPLY=($(compgen -W "--help $(caisson list --names 2>/dev/null)" -- "$word")) ;
        ;
        exec)
            if [ "$COMP_CWORD" -eq 2 ];
        then COMPREPLY = ($(compgen - W "$(caisson list --names 2>/dev/null)" --"$word")) elif["$COMP_CWORD" - eq 3];
        then COMPREPLY = (--) else COMPREPLY = ($(compgen - c-- "$word"));
        fi;
        ;
        list) COMPREPLY=($(compgen -W "--json --names --help" -- "$word")) ;
        ;
        top) COMPREPLY=($(compgen -W "--once --json --delay --help" -- "$word")) ;
        ;
        hypervisor) COMPREPLY=($(compgen -W "--daemon --no-console --help" -- "$word")) ;
        ;
        completion) COMPREPLY=($(compgen -W "bash zsh" -- "$word")) ;
        ;
        esac
        }
complete -F _caisson caisson
)sh";

}  // namespace

std::string completion(const std::string& shell) {
    if (shell == "bash") return bash;
    if (shell == "zsh") return std::string("autoload -U +X bashcompinit && bashcompinit\n") + bash;
    return {};
}

}  // namespace caisson::command
