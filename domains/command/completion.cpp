#include "domains/command/command.h"

namespace caisson::command {
namespace {

// Domains are asked for at completion time.
constexpr const char* bash = R"sh(_caisson() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} domains
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "hypervisor shutdown create destroy list console exec log top completion devd frontd --state --help" -- "$word"))
        return
    fi
    domains=$(caisson list --names 2>/dev/null)
    case $command in
        create) COMPREPLY=($(compgen -W "--wait --foreground --start --check --help" -- "$word"; compgen -f -X '!*.cfg' -- "$word"; compgen -d -- "$word")) ;;
        destroy) COMPREPLY=($(compgen -W "--all --help $domains" -- "$word")) ;;
        console | log) COMPREPLY=($(compgen -W "--help $domains" -- "$word")) ;;
        exec)
            case $COMP_CWORD in
                2) COMPREPLY=($(compgen -W "$domains" -- "$word")) ;;
                3) COMPREPLY=(--) ;;
                *) COMPREPLY=($(compgen -c -- "$word")) ;;
            esac ;;
        list) COMPREPLY=($(compgen -W "--json --names --help" -- "$word")) ;;
        top) COMPREPLY=($(compgen -W "--once --json --delay --help" -- "$word")) ;;
        hypervisor) COMPREPLY=($(compgen -W "--daemon --no-console --help" -- "$word")) ;;
        completion) COMPREPLY=($(compgen -W "bash zsh" -- "$word")) ;;
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
