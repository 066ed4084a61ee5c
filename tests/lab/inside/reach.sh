# Sourced by scenarios that ask what a domain can reach of another and of Xen: $kinds names domains free_KIND that do as they are told.

for kind in $kinds; do eval "free_$kind() { free; }; free_${kind}_words=xen_privcmd.unrestricted=1"; done
free() {
    publish state ready
    number=1
    while :; do
        told ask "$number" 900
        words=$(xenstore-read data/words)
        case $words in
            "lab_reach offer"*)
                killall lab_reach 2>/dev/null
                rm -f /tmp/offer
                $words >/tmp/offer 2>&1 &
                try 20 test -s /tmp/offer
                publish answer "$number $(cat /tmp/offer)" ;;
            *) publish answer "$number $($words 2>/dev/null)" ;;
        esac
        number=$((number + 1))
    done
}

# start_kinds: in Dom0, all of them.
start_kinds() {
    for kind in $kinds; do
        memory=160 start "free_$kind"
        eval "kind_$(id_of "free_$kind")=$kind"
    done
    for kind in $kinds; do await "free_$kind" state ready 60; done
    number=0
}
# ask KIND PROGRAM WORDS...: $got is what the program says in the domain of that kind.
ask() {
    asked=free_$1 number=$(eval "echo \$((asked_$1 + 1))"); eval "asked_$1=$number"; shift
    tell "$asked" words "$*"
    tell "$asked" ask "$number"
    try 60 answered || fail "$asked does not answer to $*"
    got=$(value "$asked" answer | cut -d' ' -f2-)
}
answered() { case $(value "$asked" answer) in "$number "*) true ;; *) false ;; esac; }

# reach: what each gets of what each, itself too, offers to it, into $out/reached: "TAKER:OWNER map=W,copy=W,bind=W" in lines.
reach() {
    >/run/offers; >"$out/reached"
    for kind in $kinds; do
        ask "$kind" lab_reach offer $(for other in $kinds; do id_of "free_$other"; done)
        # From "TAKER:REF:PORT" of this owner to "TAKER OWNER:REF:PORT".
        for one in $got; do echo "${one%%:*} $(id_of "free_$kind"):${one#*:}" >>/run/offers; done
    done
    for kind in $kinds; do
        ask "$kind" lab_reach take $(sed -n "s/^$(id_of "free_$kind") //p" /run/offers)
        for one in $got; do eval "echo $kind:\$kind_${one%%:*} ${one#*:}" >>"$out/reached"; done
    done
    same "pairs that were tried" "$(grep -c map= "$out/reached")" $(($(echo $kinds | wc -w) * $(echo $kinds | wc -w)))
}
# reached TAKER:OWNER
reached() { sed -n "s/^$1 //p" "$out/reached"; }
all="map=yes,copy=yes,bind=yes"
