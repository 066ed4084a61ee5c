# A hundred kills of our workers under Debian's own xen-blkfront and xen-netfront: no error, nothing lost, and the kernel says nothing.
limit=300
. /lab/load.sh

kills=100
back_cfg="driver_domain=1"
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/disk']
vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back']"

back() {
    served_by_us
    publish state ready
    told kill yes 200
    tap=$(basename "$(dirname "$(ls /sys/class/net/*/tun_flags)")")
    lab_kills $((kills / 2)) 300 /run/disk=/run/disk "/dev/net/tun=/sys/class/net/$tap/statistics/rx_packets" >/tmp/kills || fail "$(tail -1 /tmp/kills)"
    publish kills "$(grep -c ^kill /tmp/kills)"
    publish killed yes
}

guest() {
    . /lab/downtimes.sh
    load_begins
    told stop yes 280
    load_ends
    wget -q -O /tmp/kills http://10.0.0.1:7000/kills
    difference=$(sed -n 's/^clocks //p' /tmp/net)
    grep disk /tmp/kills >/tmp/kills-disk; grep tun /tmp/kills >/tmp/kills-net
    publish disk-downtime "$(downtimes /tmp/kills-disk /tmp/disk "$difference" | distribution)"
    publish net-downtime "$(downtimes /tmp/kills-net /tmp/net "$difference" | distribution)"
    publish state done
}

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
    load_was_served guest
    note "disk: $(value guest disk-downtime); net: $(value guest net-downtime)"
}
