# Twenty restarts of whole driver domains under load: with our frontends no error and no lost write; what stock ones get back, and how soon.
limit=1200
fio=yes
draft="twenty restarts take ten minutes: ./dev lab supervise"
. /lab/load.sh

restarts=20
# Our guest has the shadow of a disk and checked TCP (block_load, lab_traffic), and fio on a second disk, netperf to its peer. Two
# processors are not much for loads without an end: those who make them get some of one (told to load), the rest is for a domain
# that comes up.
net_image=network net_cfg="driver_domain=1
cpu_weight=8192"
storage_image=virtual-disk
storage_cfg="driver_domain=1
cpu_weight=8192
disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=peer,target=/run/disk0',
      'format=raw,vdev=xvdb,access=w,backendtype=phy,backend=peer,target=/run/disk1',
      'format=raw,vdev=xvdc,access=w,backendtype=phy,backend=peer,target=/run/disk2']"
peer_cfg="driver_domain=1
vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=net']"
guest_fio=yes
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=storage,target=/dev/xvda',
      'format=raw,vdev=xvdb,access=w,backendtype=phy,backend=storage,target=/dev/xvdc']
vif=['mac=00:16:3e:00:00:02,bridge=br0,backend=net']"
stock_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=storage,target=/dev/xvdb']
vif=['mac=00:16:3e:00:00:03,bridge=br0,backend=net']"

# What storage serves is itself served, by a domain that stays: the guest's peer.
peer() {
    for number in 0 1 2; do dd if=/dev/zero of=/run/disk$number bs=1M count=16 2>/dev/null; done
    caisson devd &
    publish state serves
    modprobe tun
    caisson frontd &
    try 60 test -d /sys/class/net/eth0 || fail "no eth0"
    ip addr add 10.0.0.1/24 dev eth0
    ip link set eth0 up
    lab_traffic serve 7001 &
    netserver_or_iperf3
    publish state ready
}

guest() {
    modprobe tun; modprobe fuse
    caisson frontd &
    for disk in xvda xvdb; do try 60 test -f /dev/$disk || fail "no /dev/$disk"; done
    try 60 test -d /sys/class/net/eth0 || fail "no eth0"
    join_net eth0 10.0.0.2 10.0.0.1 60
    # netperf connects anew each time. Linux tells a program that an address has no route when nobody answers for three seconds.
    /usr/bin/ip neigh replace 10.0.0.1 lladdr 00:16:3e:00:00:01 dev eth0 nud permanent
    publish state ready
    told load yes 300
    no_discard=no-discard load_starts  # the disk behind storage's is a xen-blkfront, which cannot write zeroes by itself
    in_turns fio fio_verifies /dev/xvdb 4m & fio=$!
    in_turns netperf netperf_runs & netperf=$!
    publish state busy
    told stop yes 1180
    touch /tmp/enough
    load_stops
    wait $fio; wait $netperf
    publish fio "$(cat /tmp/fio.sum)"
    publish netperf "$(cat /tmp/netperf.sum)"
    publish longest-disk "$(longest /tmp/disk)"
    publish longest-net "$(longest /tmp/net)"
    publish state done
}
# A netserver does not wait for long until its client's second connection comes: a run that begins in an outage begins again.
netperf_runs() {
    until netperf_or_iperf3 TCP_STREAM 10.0.0.1 5 >/tmp/run 2>&1; do
        grep -q 'connect_data_socket failed: Connection refused' /tmp/run || { cat /tmp/run; return 1; }
    done
}
# The most milliseconds between a small question and its answer.
longest() { sed -n 's/^probe //p' "$1" | awk '{ took = ($2 - $1) * 1000; if (took > most) most = took } END { printf "%d", most }'; }

# Its interface comes back without its address: that is for whoever runs the guest, here for a loop.
stock() {
    modprobe xen-blkfront; modprobe xen-netfront
    try 60 test -b /dev/xvda || fail "no /dev/xvda"
    join_net eth0 10.0.0.3 10.0.0.1 60
    while sleep 1; do ip link set eth0 up && ip addr add 10.0.0.3/24 dev eth0; done >/dev/null 2>&1 &
    (while :; do
        ping -c 1 -W 1 10.0.0.1 >/dev/null 2>&1 && read -r now _ </proc/uptime && echo "$now" >>/tmp/answers
        sleep 1
    done) &
    publish state busy
    for number in 1 2; do
        told read "$number" 1180
        try 120 dd if=/dev/xvda of=/tmp/sector bs=4k count=1 iflag=direct 2>/dev/null || fail "its disk did not come back ($number)"
        publish has-read "$number"
    done
    told stop yes 1180
    publish longest "$(awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { printf "%.1f", most }' /tmp/answers)"
    dmesg | grep -i 'error\|BUG\|blocked for'  # told, not judged: it was served by what died
    publish state done
}

about() { xenstore-read "/tool/caisson/supervise/$1/$2" 2>/dev/null; }
# lives NAME RESTARTS: it is ready, and has begun anew so often.
lives() { [ "$(about "$1" state)" = ready ] && [ "$(about "$1" restarts)" = "$2" ] && [ -z "$(about "$1" predecessors)" ]; }
# is_served NAME: our guest has connected to what NAME serves.
is_served() {
    case $1 in net) device=vif/0 ;; storage) device=vbd/51712 ;; esac
    [ "$(xenstore-read "/local/domain/$(id_of guest)/device/$device/state")" = 4 ]
}
# A stock guest's disk is its new driver domain's. Whoever reads before that asks the dead one, and waits for ever; so does its
# kernel, which reads the partition table of a disk that came back, if the driver domain ends meanwhile.
stock_has_its_disk() {
    looks=$((45 * patience)) vbd=/local/domain/$(id_of stock)/device/vbd/51712
    until [ "$(echo $(xenstore-read $vbd/state $vbd/backend-id 2>/dev/null))" = "4 $(about storage domid)" ]; do
        [ $((looks -= 1)) != 0 ] || fail "the stock guest's disk does not come back"
        sleep 2
    done
}
stock_reads() {
    stock_has_its_disk
    tell stock read "$1"
    await stock has-read "$1" 60
}
# again NAME COMMAND...: the command ends the domain; the supervisor makes another one.
again() {
    name=$1; shift
    ends=$(($(about "$name" restarts) + 1))
    "$@" || fail "$*"
    is_again "$name" $ends
    sleep 3
}
is_again() {
    name=$1 ends=$2 looks=$((90 * patience))
    until { lives "$name" "$ends" && is_served "$name"; } || [ $((looks -= 1)) = 0 ]; do sleep 2; done  # each look is programs that others pay for
    [ $looks != 0 ] || fail "$name: $(about "$name" state), $(about "$name" restarts) restarts, $(about "$name" why)"
    say "$name is domain $(about "$name" domid) after $(about "$name" outage) ms: $(about "$name" why)"
}

dom0() {
    for name in net storage; do memory=96 describe $name; done
    caisson supervise --steady 1 --start $((60 * patience)) --heart $((10 * patience)) /run/net.cfg /run/storage.cfg >"$out/supervise.log" 2>&1 &
    supervisor=$!
    try 90 lives net 0 || fail "net: $(about net state) $(about net why)"
    start peer
    try 120 lives storage 0 || fail "storage: $(about storage state) $(about storage why)"  # it could not be made before
    memory=400 start guest
    start stock
    await peer state ready 60
    await guest state ready 60
    await stock state busy 90
    xl sched-credit2 -d Domain-0 -w 8192
    for share in peer:50 guest:50 stock:15; do xl sched-credit2 -d ${share%:*} -c ${share#*:}; done
    tell guest load yes
    await guest state busy 120

    again net xl pause net               # its heart stands still
    again storage xl shutdown storage    # in order, and nobody told the supervisor
    ln -s /run/network.img /run/new.img
    ! caisson restart net "type='nonsense'" || fail "what cannot be made was taken for settings"
    again net caisson restart net "ramdisk='/run/new.img'"
    case $(about net settings) in "ramdisk='/run/new.img'"*) ;; *) fail "net runs with $(about net settings)" ;; esac
    stock_reads 1
    again storage caisson restart storage
    for round in 1 2 3 4 5 6 7 8; do
        for name in net storage; do xl destroy $name || fail "xl destroy $name"; done
        is_again net $((round + 2))
        is_again storage $((round + 2))
        stock_has_its_disk
        sleep 3
    done
    same "restarts of both" $(($(about net restarts) + $(about storage restarts))) $restarts
    tell guest stop yes
    await guest state done 120
    for one in fio netperf; do
        set -- $(value guest $one)
        say "runs of $one: $1"
        [ "$1" -ge 2 ] || fail "$one ran $1 times"
        same "failed runs of $one" "$2" 0
    done
    load_was_whole guest
    stock_reads 2
    tell stock stop yes
    await stock state done 30
    kill $supervisor
    note "$restarts restarts, 0 errors; longest wait of our guest: disk $(value guest longest-disk) ms, net $(value guest longest-net) ms;" \
        "a stock guest's net was away for $(value stock longest) s at most"
}
