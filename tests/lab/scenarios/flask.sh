# Xen enforces domains/policy: the layout that owns its devices works under it, and each kind of domain is denied what it has no need of: other domains, hypercalls.
limit=1200
devices=yes
flask=yes
draft="it builds a Xen from source, which takes minutes: ./dev lab flask"

. /lab/scenarios/devices.sh

kinds="net storage usb firewall guest other"
. /lab/reach.sh
for kind in $kinds; do eval "free_${kind}_cfg=\"seclabel='system_u:system_r:caisson_${kind}_t'\""; done
free_other_cfg=$free_guest_cfg
# A guest of the other type; only its start: the virtualisation that QEMU emulates does not keep such a kernel for long.
pvh_guest_cfg="$free_guest_cfg
type='pvh'"
pvh_guest() { publish state ready; }

serves="net:firewall firewall:guest firewall:other storage:guest storage:other usb:guest usb:other"
# Of the hypercalls of lab_hypercalls.
needs_net=exchange needs_storage=exchange needs_usb=exchange needs_guest="increase_reservation decrease_reservation"

# may WORD LIST
may() { case " $2 " in *" $1 "*) true ;; *) false ;; esac; }
denials() { cat "$out"/xen-*.txt | grep -c 'avc: *denied'; }

# pair TAKER:OWNER: what the policy lets it reach is what it reached.
pair() {
    if may "$1" "$serves"; then wanted=$all
    elif may "${1#*:}:${1%:*}" "$serves"; then wanted=map=denied,copy=yes,bind=yes  # a copy is allowed along its data
    else wanted=map=denied,copy=denied,bind=denied; fi
    same "$1" "$(reached "$1" | sed 's/=-*[0-9][0-9]*/=denied/g')" $wanted
}
# hypercalls KIND
hypercalls() {
    ask "$1" lab_hypercalls
    say "hypercalls of $1: $got"
    denied=
    for one in $got; do
        case $(may "${one%=*}" "$(eval "echo \$needs_$1")" && echo needed),${one#*=} in
            needed,yes) ;;
            ,1 | ,13) denied="$denied ${one%=*}" ;;  # EPERM, EACCES
            *) fail "$1 gets $one" ;;
        esac
    done
    say "hypercalls denied to $1:$denied"
}

dom0() {
    same "FLASK" "$(xl getenforce)" "Enforcing"
    chain
    same "the label of a guest" "$(xl list -Z work | awk 'END { print $NF }')" "system_u:system_r:caisson_guest_t"
    xl destroy work
    start_kinds
    memory=160 begin pvh_guest 60 is pvh_guest state ready
    is pvh_guest state ready || fail "the PVH guest does not start"
    xl destroy pvh_guest
    xl dmesg -c >"$out/xen-working.txt"
    same "denials while all did what it is for" "$(denials)" 0

    xl setenforce 0
    reach
    for one in $kinds; do for other in $kinds; do same "not enforced: $one:$other" "$(reached "$one:$other")" "$all"; done; done
    for kind in net storage usb firewall guest; do
        ask $kind lab_hypercalls
        for one in $got; do case $one in *=yes) ;; *) fail "not enforced: $kind gets $one" ;; esac; done
    done
    xl setenforce 1
    reach
    for one in $kinds; do for other in $kinds; do pair "$one:$other"; done; done
    counts=
    for kind in net storage usb firewall guest; do
        hypercalls $kind
        counts="$counts $kind $(echo $denied | wc -w),"
    done
    xl dmesg >"$out/xen-denied.txt"
    note "of $(wc -l <"$out/reached") pairs $(grep -c yes "$out/reached") speak; hypercalls denied:$counts $(denials) denials in Xen's log"
}
