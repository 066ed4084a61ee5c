# For `./dev bench lab`: one guest, two interfaces, behind our backend and Linux's; netperf (without it iperf3) takes turns.
measures=yes
limit=600
memory=512

back_cfg="driver_domain=1"
peer_cfg="driver_domain=1"
guest_cfg="vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back', 'mac=00:16:3e:00:00:02,bridge=br0,backend=peer']"

back() {
    modprobe tun
    served 10.0.0.1
    caisson devd &
    publish state ready
    wait
}

peer() {
    . /lab/kernel_backends.sh
    served 10.0.1.1
    kernel_backends &
    publish state ready
    wait
}

served() {
    make_bridge "$1"
    if type netserver >/dev/null 2>&1; then netserver >/dev/null; else iperf3 -s -D; fi
}

guest() {
    modprobe xen-netfront
    told rounds go 60
    rounds=$(xenstore-read data/measure-rounds) seconds=$(xenstore-read data/measure-seconds)
    for number in 0 1; do
        try 30 test -d "/sys/class/net/eth$number" || fail "no eth$number"
        join_net "eth$number" "10.0.$number.2" "10.0.$number.1" 30
    done
    for round in $(seq "$rounds"); do
        for case in TCP_STREAM TCP_MAERTS TCP_RR; do
            for contender in ours:0 netback:1; do
                figure=$(one "$case" "10.0.${contender#*:}.1")
                [ -z "$figure" ] || echo "FIGURE $case/${contender%:*} $figure"
            done
        done
        say "round $round of $rounds"
    done
    publish state done
}
# Mbit/s, or transactions a second. iperf3 has no word for the latter.
one() {
    if type netperf >/dev/null 2>&1; then netperf -H "$2" -t "$1" -l "$seconds" -P 0 | awk 'NF > 4 { print ($6 == "" ? $5 : $6) }'
    elif [ "$1" = TCP_STREAM ]; then iperf3 -c "$2" -t "$seconds" -f m | awk '/receiver/ { print $7 }'
    elif [ "$1" = TCP_MAERTS ]; then iperf3 -R -c "$2" -t "$seconds" -f m | awk '/receiver/ { print $7 }'
    fi
}

dom0() {
    for name in back peer; do start $name; done
    for name in back peer; do await $name state ready 120; done
    start guest
    measure guest
    await guest state done 500
}
