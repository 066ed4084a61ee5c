# Xen enforces domains/policy: the layout that owns its devices works under it; who is not to speak with whom cannot, and without it could.
limit=900
devices=yes
flask=yes
draft="it builds a Xen from source, which takes minutes: ./dev lab flask"

. /lab/scenarios/devices.sh

# Domains that do as they are told: one of each kind, and a second guest.
for kind in net storage firewall guest; do eval "free_${kind}_cfg=\"seclabel='system_u:system_r:caisson_${kind}_t'\""; done
free_other_cfg=$free_guest_cfg
for kind in net storage firewall guest other; do eval "free_$kind() { free; }"; done
free() {
    publish state ready
    number=1
    while :; do
        told ask "$number" 900
        words=$(xenstore-read data/words)
        case $words in
            offer*)
                killall lab_reach 2>/dev/null
                rm -f /tmp/offer
                lab_reach $words >/tmp/offer 2>&1 &
                try 20 test -s /tmp/offer
                publish answer "$number $(cat /tmp/offer)" ;;
            *) publish answer "$number $(lab_reach $words 2>/dev/null)" ;;
        esac
        number=$((number + 1))
    done
}

# ask KIND WORDS...: what lab_reach says to them in the domain of that kind.
ask() {
    asked=free_$1; shift
    number=$(($(cat "/run/asked-$asked" 2>/dev/null) + 1))
    echo $number >"/run/asked-$asked"
    tell "$asked" words "$*"
    tell "$asked" ask $number
    try 60 answered || { echo nothing; return; }
    value "$asked" answer | cut -d' ' -f2-
}
answered() { case $(value "$asked" answer) in "$number "*) true ;; *) false ;; esac; }
# reach TAKER OWNER: what the one gets of what the other offers.
reach() {
    set -- "$1" "$2" $(ask "$2" offer "$(id_of "free_$1")")
    ask "$1" take "$(id_of "free_$2")" "$3" "$4"
}

may_not="net:storage net:guest storage:net storage:firewall firewall:storage net:other guest:net guest:other other:guest"
may="firewall:net net:firewall guest:firewall storage:guest guest:storage"

dom0() {
    same "FLASK" "$(xl getenforce)" "Enforcing"
    chain
    same "the label of a guest" "$(xl list -Z work | awk 'END { print $NF }')" "system_u:system_r:caisson_guest_t"
    xl destroy work
    rm -f /run/asked-*
    for kind in net storage firewall guest other; do memory=160 start "free_$kind"; done
    for kind in net storage firewall guest other; do await "free_$kind" state ready 60; done
    xl setenforce 0
    for pair in $may_not; do
        same "without the policy: $pair" "$(reach "${pair%:*}" "${pair#*:}")" "map=yes copy=yes bind=yes"
    done
    xl setenforce 1
    for pair in $may; do
        same "by the policy: $pair" "$(reach "${pair%:*}" "${pair#*:}")" "map=yes copy=yes bind=yes"
    done
    for pair in $may_not; do
        got=$(reach "${pair%:*}" "${pair#*:}")
        case $got in
            *yes* | nothing) fail "in spite of the policy: $pair $got" ;;
            map=*copy=*bind=*) say "denied: $pair $got" ;;
            *) fail "$pair says '$got'" ;;
        esac
    done
    xl dmesg >"$out/avc.txt"
    note "$(echo $may_not | wc -w) pairs denied, $(echo $may | wc -w) allowed, $(grep -c 'avc: *denied' "$out/avc.txt") denials in Xen's log"
}
