# A PVH guest (hardware virtualisation, which QEMU emulates, too): its stock frontends find our disk and our interface.
limit=260

back_cfg="driver_domain=1"
guest_cfg="type='pvh'
disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/disk']
vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back']"

back() {
    modprobe tun
    make_bridge 10.0.0.1
    dd if=/dev/urandom of=/run/disk bs=64k count=64 2>/dev/null
    publish disk "$(md5sum </run/disk | cut -c1-32)"
    httpd -p 7000 -h /run
    caisson devd &
    publish state ready
    told look yes 240
    publish written "$(md5sum </run/disk | cut -c1-32)"
    publish state looked
}

guest() {
    modprobe xen-blkfront; modprobe xen-netfront
    publish kind "$(cat /sys/hypervisor/guest_type)"
    try 60 test -b /dev/xvda || fail "no /dev/xvda"
    publish read "$(dd if=/dev/xvda bs=64k iflag=direct 2>/dev/null | md5sum | cut -c1-32)"
    join_net eth0 10.0.0.2 10.0.0.1 20
    publish fetched "$(wget -q -O - http://10.0.0.1:7000/disk | md5sum | cut -c1-32)"
    dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
    dd if=/tmp/data of=/dev/xvda bs=64k oflag=direct conv=notrunc,fsync 2>/dev/null || fail "a write failed"
    publish data "$(md5sum </tmp/data | cut -c1-32)"
    publish state done
}

dom0() {
    start back
    await back state ready 60
    begin guest 60 is guest kind PVH
    await guest state done 180
    same "the kind of guest" "$(value guest kind)" PVH
    same "4 MiB read from the disk" "$(value guest read)" "$(value back disk)"
    same "4 MiB fetched over TCP" "$(value guest fetched)" "$(value back disk)"
    tell back look yes
    await back state looked 30
    same "4 MiB written to the disk" "$(value back written)" "$(value guest data)"
}
