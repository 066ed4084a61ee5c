# A hundred kills of our workers under Debian's own xen-blkfront and xen-netfront: no error, nothing lost, and the kernel says nothing.
draft="being written"
limit=300

kills=100
back_cfg="driver_domain=1"
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/disk']
vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back']"

back() {
    modprobe tun; modprobe bridge
    ip link add br0 type bridge
    ip addr add 10.0.0.1/24 dev br0
    ip link set br0 up
    dd if=/dev/zero of=/run/disk bs=1M count=16 2>/dev/null
    lab_traffic serve 7001 &
    httpd -p 7000 -h /tmp
    caisson devd &
    publish state ready
    told kill yes 200
    lab_kills $kills 300 /run/disk /dev/net/tun >/tmp/kills || fail "$(tail -1 /tmp/kills)"
    publish kills "$(grep -c ^kill /tmp/kills)"
    publish killed yes
}

guest() {
    . /lab/downtimes.sh
    modprobe xen-blkfront; modprobe xen-netfront
    try 60 test -b /dev/xvda || fail "no /dev/xvda"
    ip addr add 10.0.0.2/24 dev eth0
    ip link set eth0 up
    try 20 ping -c 1 -W 1 10.0.0.1 >/dev/null || fail "no answer to a ping"
    mkfifo /tmp/stop-disk /tmp/stop-net
    exec 4<>/tmp/stop-disk 5<>/tmp/stop-net
    block_load /dev/xvda /tmp/model 1 </tmp/stop-disk >/tmp/disk 2>&1 & disk=$!
    lab_traffic ask 10.0.0.1 7001 </tmp/stop-net >/tmp/net 2>&1 & net=$!
    try 60 grep -q ^ready /tmp/disk || fail "the disk: $(tail -1 /tmp/disk)"
    states >/tmp/states-before; dmesg >/tmp/dmesg-before
    publish state busy
    told stop yes 280
    echo >&4; echo >&5
    wait $disk; wait $net
    states >/tmp/states-after; dmesg >/tmp/dmesg-after
    diff /tmp/dmesg-before /tmp/dmesg-after
    publish words "$(diff /tmp/dmesg-before /tmp/dmesg-after | grep -c '^>')"
    cmp /tmp/states-before /tmp/states-after || fail "a device was attached anew"
    publish disk "$(sed -n 's/^end //p' /tmp/disk)"
    publish net "$(sed -n 's/^end //p' /tmp/net)"
    grep -h ^error /tmp/disk /tmp/net
    wget -q -O /tmp/kills http://10.0.0.1:7000/kills
    difference=$(sed -n 's/^clocks //p' /tmp/net)
    grep disk /tmp/kills >/tmp/kills-disk; grep tun /tmp/kills >/tmp/kills-net
    publish disk-downtime "$(downtimes /tmp/kills-disk /tmp/disk "$difference" | distribution)"
    publish net-downtime "$(downtimes /tmp/kills-net /tmp/net "$difference" | distribution)"
    publish state done
}
# The states, rings and event channels of both devices: another attachment has others.
states() { xenstore-ls device | md5sum | cut -c1-32; }

dom0() {
    start back
    await back state ready 60
    start guest
    await guest state busy 90
    tell back kill yes
    await back killed yes 200
    tell guest stop yes
    await guest state done 90
    same "kills" "$(value back kills)" $kills
    same "words of the guest's kernel" "$(value guest words)" 0
    say "the disk (sectors checked, lost, torn, elsewhere, errors, requests): $(value guest disk)"
    say "the net (messages, bytes, errors): $(value guest net)"
    set -- $(value guest disk)
    same "sectors lost, torn, elsewhere, and errors of the disk" "$2 $3 $4 $5" "0 0 0 0"
    set -- $(value guest net)
    same "errors of the net" "$3" 0
    note "disk: $(value guest disk-downtime); net: $(value guest net-downtime)"
}
