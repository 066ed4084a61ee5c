# Our net frontend in a guest (a TAP named eth0) against Debian's own xen-netback in Dom0: pings, and both directions of TCP.
limit=200

guest_cfg="vif=['mac=00:16:3e:00:00:01,bridge=br0']"

guest() {
    modprobe tun
    caisson frontd &
    try 60 test -d /sys/class/net/eth0 || fail "no eth0"
    join_net eth0 10.0.0.2 10.0.0.1 60
    publish ping "$(ping -c 5 -i 0.2 -s 1400 10.0.0.1 | grep -o '[0-9]* packets received')"
    publish down "$(wget -q -O - http://10.0.0.1:7000/blob | md5sum | cut -c1-32)"
    dd if=/dev/urandom of=/tmp/up bs=64k count=32 2>/dev/null
    publish sent "$(md5sum </tmp/up | cut -c1-32)"
    httpd -p 7000 -h /tmp
    publish state done
}

dom0() {
    modprobe xen-netback
    make_bridge 10.0.0.1
    mkdir -p /run/www
    dd if=/dev/urandom of=/run/www/blob bs=64k count=64 2>/dev/null
    httpd -p 7000 -h /run/www
    start guest
    await guest state done 150
    same "answers to five pings of 1400 bytes" "$(value guest ping)" "5 packets received"
    same "4 MiB to the guest" "$(value guest down)" "$(md5sum </run/www/blob | cut -c1-32)"
    same "2 MiB from the guest" "$(wget -q -O - http://10.0.0.2:7000/up | md5sum | cut -c1-32)" "$(value guest sent)"
}
