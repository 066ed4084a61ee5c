# For `./dev bench images`: a driver domain of ours, and one of Debian's stock tools, in turns: when it serves, what it needs for that.
measures=yes
limit=2400
. /lab/load.sh

contenders="ours stock busybox"
[ ! -e /run/own-kernel ] || contenders="$contenders own"  # what `ours` is, with the kernel of our own
for name in $contenders; do eval "${name}_cfg='driver_domain=1' ${name}_image=$name ${name}_kernel=/run/vmlinux"; done
own_kernel=

# Its devices are in xenstore, but it never runs.
waiting_cfg=

guest() {
    modprobe xen-blkfront; modprobe xen-netfront
    try 30 test -b /dev/xvda || fail "no /dev/xvda"
    fio_verifies /dev/xvda 4m >/tmp/fio 2>&1 || fail "fio: $(tail -1 /tmp/fio)"
    # Its second interface is another machine's: everything goes through the driver domain's bridge. (busybox's ip has no netns.)
    far="/usr/bin/ip netns exec far"
    { /usr/bin/ip netns add far && /usr/bin/ip link set eth1 netns far &&
        $far ip addr add 10.0.0.3/24 dev eth1 && $far ip link set eth1 up; } || fail "no second machine"
    netserver_or_iperf3 $far
    join_net eth0 10.0.0.2 10.0.0.3 30
    for case in TCP_STREAM TCP_MAERTS; do
        netperf_or_iperf3 $case 10.0.0.3 1 >/tmp/net 2>&1 || fail "$case carried nothing: $(tail -1 /tmp/net)"
    done
    publish state done
}

dom0() {
    read -r rounds step </share/measure
    paused=-p start waiting
    trial ours >/run/said 2>&1  # the first of all pays for what Dom0 has not done yet
    for round in $(seq "$rounds"); do
        # What is said in between would wait for the host, while the clock does not.
        for one in $contenders; do trial $one >/run/said 2>&1; cat /run/said; done
    done
    guest_memory=512
    for one in $contenders; do
        [ $one != busybox ] || continue
        guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=$one,target=/dev/ram0']
                   vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=$one', 'mac=00:16:3e:00:00:02,bridge=br0,backend=$one']"
        smallest $one
    done
}

trial() {
    read -r begun _ </proc/uptime
    memory=128 start "$1"
    read -r made _ </proc/uptime
    serves "$1" || fail "$1 does not come to serve"
    read -r served _ </proc/uptime
    sleep 10  # what was needed for the start alone is given back, and the memory in use is told anew
    echo "FIGURE ready_time/$1 $(awk "BEGIN { print $served - $begun, $made - $begun }")"
    echo "FIGURE memory/$1 $(value "$1" service/memory)"
    xl destroy "$1"
}

# serves NAME: until its backends have a vif and a disk, given to it as soon as it was made, in the state in which libxl goes on
# with a guest. Not by libxl itself, which is content with ten seconds at most: a kernel's start is longer here. Everything that
# runs is on the one clock: so this is few programs, that wait.
serves() {
    driver=$(id_of "$1") guest=$(id_of waiting) nodes=
    back=/local/domain/$driver/backend front=/local/domain/$guest/device
    vif=$back/vif/$guest/0 vbd=$back/vbd/$guest/51712
    device vif 0 script=/etc/xen/scripts/vif-bridge mac=00:16:3e:00:00:09 bridge=br0 handle=0 type=vif hotplug-status= : \
        handle=0 mac=00:16:3e:00:00:09 mtu=1500
    device vbd 51712 params=/dev/ram0 script=/etc/xen/scripts/block type=phy dev=xvda mode=w device-type=disk removable=0 \
        bootable=1 specification=xen discard-enable=1 : device-type=disk virtual-device=51712
    eval "xenstore-write $nodes"
    xenstore-chmod -r "$back" "n$driver" "r$guest"
    xenstore-chmod -r "$front" "n$guest" "r$driver"
    xenstore-chmod "$front/vif/0/mtu" "n$driver" "r$guest"  # vif-bridge writes it
    rm -f /run/news; mkfifo /run/news
    xenstore-watch "$back" >/run/news & watch=$!
    patiently $watch & looks=$!
    while read -r path; do
        case $path in */state | */hotplug-status) serving && break ;; esac
    done </run/news
    kill $watch $looks 2>/dev/null
    serving
}
# device CLASS NUMBER BACKEND'S-KEY=VALUE... : FRONTEND'S-KEY=VALUE...: as libxl writes them (lab/truth/guest.txt).
device() {
    folder=$back/$1/$guest/$2 theirs=$front/$1/$2 ours=$back/$1/$guest/$2
    shift 2
    for pair in frontend=$theirs frontend-id=$guest online=1 state=1 "$@" backend=$ours backend-id=$driver state=1; do
        if [ "$pair" = : ]; then folder=$theirs; continue; fi
        nodes="$nodes $folder/${pair%%=*} '${pair#*=}'"
    done
}
serving() {
    [ "$(echo $(xenstore-read $vif/state $vbd/state $vif/hotplug-status $vbd/hotplug-status 2>/dev/null))" = "2 2 connected connected" ]
}
# patiently PROCESS: ends it with the domain, or after a long time. `xl devd` does not see what was there before it, but looks at
# a device when this key of it is written.
patiently() {
    for look in $(seq $((20 * patience))); do
        sleep 4
        xenstore-exists "$vif" && xenstore-write "$vif/online" 1 "$vbd/online" 1 || break
    done
    kill "$1"
}

# smallest NAME: the least memory, in MiB, with which it comes to serve and a guest's load ends well.
smallest() {
    fails=16 passes=256
    while [ $((passes - fails)) -gt "$step" ]; do
        middle=$(((passes + fails) / 2 / step * step))
        if enough "$1" $middle; then passes=$middle; else fails=$middle; fi
    done
    [ $passes -lt 256 ] || enough "$1" 256 || fail "$1 does not pass with 256 MiB"
    echo "FIGURE memory_least/$1 $passes"
}
enough() {
    (   patience=1 memory=$2 start "$1"  # too little for the kernel stays too little
        serves "$1" || fail "$1 does not come to serve with $2 MiB"
        memory=$guest_memory start guest
        await guest state done 120 )
    status=$?
    for name in guest "$1"; do xl destroy $name 2>/dev/null; done
    say "$1 with $2 MiB: $([ $status = 0 ] && echo passes || echo fails)"
    rm -f "$out/verdict"
    return $status
}
