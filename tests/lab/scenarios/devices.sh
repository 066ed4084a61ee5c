# Service VMs own the NIC and the NVMe: a guest runs from the one and reaches the network through a firewall and the other; nothing passes Dom0.
limit=420
devices=yes

net_layout=qubes-like/sys-net net_image=network
storage_layout=qubes-like/sys-storage storage_image=storage
firewall_layout=qubes-like/sys-firewall firewall_image=firewall
firewall_words="caisson.interface=eth0,10.0.2.20/24,via,10.0.2.2"
guest_layout=qubes-like/work
guest_words="root=/dev/xvda"

guest() {
    publish root "$(sed -n 's|^\([^ ]*\) / ext4 .*|\1|p' /proc/mounts)"
    modprobe xen-netfront
    ip addr add 10.1.0.2/32 dev eth0
    ip link set eth0 up
    ip route add 10.0.2.20/32 dev eth0
    ip route add default via 10.0.2.20 dev eth0
    try 60 ping -c 1 -W 1 10.0.2.2 >/dev/null || fail "no answer from behind the NIC"
    publish state ready
    told look yes 120
    dd if=/dev/urandom of=/blob bs=64k count=64 conv=fsync 2>/dev/null || fail "a write failed"
    echo 3 >/proc/sys/vm/drop_caches
    publish sent "$(md5sum </blob | cut -c1-32)"
    publish arrived "$(nc 10.0.2.101 7000 </blob | cut -c1-32)"
    publish fetched "$(nc 10.0.2.100 7000 </dev/null | md5sum | cut -c1-32)"
    publish complaints "$(dmesg | grep -c -i 'I/O error\|xen_netfront.*err')"
    publish state done
}

# pci CLASS: where the device of that class is.
pci() { for one in /sys/bus/pci/devices/*; do [ "$(cat "$one/class")" != "$1" ] || basename "$one"; done; }
# granted WHEN: pages of other domains that Dom0 has mapped by a grant: of the consoles, xenstore, and all else.
granted() {
    xl debug-keys g; sleep 1; xl dmesg -c >"$out/xen-$1.txt"
    sed -n '/gnttab_usage_print_all \[/,$p' "$out/xen-$1.txt" >"$out/grants-$1.txt"
    of_dom0() { grep -c "^(XEN) \[0x$1\]  *0 " "$out/grants-$2.txt"; }
    console=$(of_dom0 000 "$1") store=$(of_dom0 001 "$1")
    echo "$console, $store, $(($(of_dom0 '[0-9a-f]*' "$1") - console - store))"
}
# carried NAME CLASS: bytes that the backends of a service VM carried.
carried() { value "$1" service/bytes | tr ' ' '\n' | sed -n "s/^$2=//p"; }

dom0() { chain; }

chain() {
    nic=$(pci 0x020000) nvme=$(pci 0x010802)
    [ -n "$nic" ] && [ -n "$nvme" ] || fail "this machine has no such devices: NIC '$nic', NVMe '$nvme'"
    net_cfg="pci=['$nic']" storage_cfg="pci=['$nvme']"
    modprobe xen-pciback
    for one in "$nic" "$nvme"; do xl pci-assignable-add "$one" || fail "$one is not assignable"; done
    start_image storage
    start_image net
    start_image firewall
    start guest
    await guest state ready 120
    cat /proc/diskstats >"$out/disks-before"
    mapped=$(granted before)
    tell guest look yes
    await guest state done 150
    same "the guest's root" "$(value guest root)" "/dev/xvda"
    same "4 MiB to the network, as they arrive" "$(value guest arrived)" "$(value guest sent)"
    same "4 MiB from the network" "$(value guest fetched)" "$(md5sum </share/blob | cut -c1-32)"
    same "complaints of the guest's kernel" "$(value guest complaints)" 0
    same "Dom0's network interfaces" "$(ls /sys/class/net)" "lo"
    same "Dom0's backends" "$(xenstore-list /local/domain/0/backend | grep -v '^console$\|^pci$')" ""
    cat /proc/diskstats >"$out/disks-after"
    cmp "$out/disks-before" "$out/disks-after" || fail "Dom0's disks had traffic"
    # The two are where the drivers of the passed devices ask Dom0's pciback for PCI's configuration space.
    same "pages that Dom0 has mapped before the traffic: of consoles, of xenstore, others" "$mapped" "4, 4, 2"
    same "and after it" "$(granted after)" "4, 4, 2"
    for name in storage net firewall; do try 20 lives_on "$name" || fail "$name is ill"; done
    note "bytes: storage $(carried storage vbd), firewall $(carried firewall vif), net $(carried net vif), Dom0 0"
    for name in "storage vbd" "firewall vif" "net vif"; do
        [ "$(carried $name)" -ge 8388608 ] || fail "$name: only $(carried $name) bytes"
    done
    end_image firewall
    end_image net
    end_image storage
}
