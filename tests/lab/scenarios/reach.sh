# Where no policy says otherwise, a domain reaches any other, and may do to Xen all that the scenario flask sees denied.
limit=400
draft="it belongs to flask: ./dev lab flask reach"

kinds="one other"
. /lab/reach.sh

dom0() {
    start_kinds
    reach
    for pair in one:one one:other other:one other:other; do same "$pair" "$(reached $pair)" "$all"; done
    ask one lab_hypercalls
    say "hypercalls: $got"
    for one in $got; do case $one in *=yes) ;; *) fail "$one" ;; esac; done
    note "each reaches the other, itself too, and $(echo $got | wc -w) hypercalls pass"
}
