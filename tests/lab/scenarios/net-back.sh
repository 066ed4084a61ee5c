# Our net backend in an unprivileged driver domain: Debian's own xen-netfront pings and transfers, both ways with their checksums.
limit=240

back_cfg="driver_domain=1"
guest_cfg="vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back']"

back() {
    modprobe tun
    make_bridge 10.0.0.1
    dd if=/dev/urandom of=/tmp/blob bs=64k count=64 2>/dev/null
    httpd -p 7000 -h /tmp
    publish blob "$(md5sum </tmp/blob | cut -c1-32)"
    caisson devd &
    publish state ready
    told look yes 200
    ip -s link show type tun
    publish received "$(wget -q -O - http://10.0.0.2:7000/up | md5sum | cut -c1-32)"
    publish state looked
}

guest() {
    modprobe xen-netfront
    join_net eth0 10.0.0.2 10.0.0.1 20
    publish ping "$(ping -c 5 -i 0.2 -s 1400 10.0.0.1 | grep -o '[0-9]* packets received')"
    publish down "$(wget -q -O - http://10.0.0.1:7000/blob | md5sum | cut -c1-32)"
    publish queues "$(ls -d /sys/class/net/eth0/queues/tx-* | wc -l)"
    dd if=/dev/urandom of=/tmp/up bs=64k count=32 2>/dev/null
    publish sent "$(md5sum </tmp/up | cut -c1-32)"
    httpd -p 7000 -h /tmp  # not nc: busybox's lets go before the last byte is out
    publish state done
}

dom0() {
    start back
    await back state ready 60
    start guest
    await guest state done 150
    same "answers to five pings of 1400 bytes" "$(value guest ping)" "5 packets received"
    same "4 MiB from the driver domain" "$(value guest down)" "$(value back blob)"
    tell back look yes
    await back state looked 60
    same "2 MiB to the driver domain" "$(value back received)" "$(value guest sent)"
}
