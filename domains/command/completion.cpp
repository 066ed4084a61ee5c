#include "domains/command/command.h"

namespace caisson::command {
namespace {

// Domains are asked for at completion time.
constexpr const char* bash =
    R"sh(# The words before the one being typed, without --state and its folder, which may stand anywhere.
_caisson() {
    local word=${COMP_WORDS[COMP_CWORD]} before=("${COMP_WORDS[@]:1:COMP_CWORD-1}") words=() state=() domains i
    for ((i = 0; i < ${#before[@]}; i++)); do
        case ${before[i]} in
            --state)
                if ((i + 1 == ${#before[@]})); then COMPREPLY=($(compgen -d -- "$word")); return; fi
                state=(--state "${before[++i]}") ;;
            --state=*) state=("${before[i]}") ;;
            *) words+=("${before[i]}") ;;
        esac
    done
    _caisson_domains() { caisson "${state[@]}" list --names 2>/dev/null; }
    _caisson_words() { COMPREPLY=($(compgen -W "$*" -- "$word")); }
    if [ ${#words[@]} -eq 0 ]; then
        _caisson_words hypervisor shutdown create destroy attach detach resize supervise restart list console exec log top doctor completion help devd frontd --state --version --help
        return
    fi
    case ${words[0]} in
        hypervisor) _caisson_words --daemon --no-console --state --help ;;
        shutdown | devd | frontd) _caisson_words --state --help ;;
        create)
            _caisson_words --wait --foreground --start --check --state --help
            COMPREPLY+=($(compgen -f -X '!*.cfg' -- "$word"; compgen -d -- "$word")) ;;
        destroy) _caisson_words --all --state --help $(_caisson_domains) ;;
        attach)
            case ${#words[@]} in
                1) _caisson_words --wait --state --help $(_caisson_domains) ;;
                2) _caisson_words block ;;
                *) _caisson_words --wait vdev= backend= target= rate-iops= rate-bytes= ;;
            esac ;;
        detach)
            case ${#words[@]} in
                1) _caisson_words --force --state --help $(_caisson_domains) ;;
                2) _caisson_words block ;;
            esac ;;
        resize) _caisson_words --state --help $(_caisson_domains) ;;
        supervise)
            _caisson_words --start --heart --steady --state --help
            COMPREPLY+=($(compgen -f -X '!*.cfg' -- "$word"; compgen -d -- "$word")) ;;
        restart) _caisson_words --wait --state --help $(_caisson_domains) ;;
        list) _caisson_words --json --names --state --help ;;
        console)
            case ${words[-1]} in
                -n | --number) COMPREPLY=() ;;
                *) _caisson_words --number --state --help $(_caisson_domains) ;;
            esac ;;
        log) _caisson_words --state --help $(_caisson_domains) ;;
        exec)
            if [ ${#words[@]} -eq 1 ]; then _caisson_words --state --help $(_caisson_domains)
            else COMPREPLY=($(compgen -c -- "$word")); fi ;;
        top)
            case ${words[-1]} in
                -d | --delay) COMPREPLY=() ;;
                *) _caisson_words --once --json --delay --state --help ;;
            esac ;;
        doctor) _caisson_words local driver-domain guest control passthrough --json --help ;;
        completion) _caisson_words bash zsh ;;
        help) _caisson_words hypervisor shutdown create destroy attach detach resize supervise restart list console exec log top doctor completion devd frontd ;;
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
