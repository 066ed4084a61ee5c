# A service VM from images/network.recipe: two guests with Debian's own xen-netfront talk through it; it ends in order on xl shutdown.
limit=260

net_image=network
net_words="caisson.bridge=br0,10.0.0.1/24"
net_cfg="driver_domain=1"
one_cfg="vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=net']"
two_cfg="vif=['mac=00:16:3e:00:00:02,bridge=br0,backend=net']"

one() {
    modprobe xen-netfront
    dd if=/dev/urandom of=/tmp/blob bs=64k count=64 2>/dev/null
    httpd -p 7000 -h /tmp
    publish blob "$(md5sum </tmp/blob | cut -c1-32)"
    join_net eth0 10.0.0.2 10.0.0.1 20
    publish state ready
}

two() {
    modprobe xen-netfront
    join_net eth0 10.0.0.3 10.0.0.1 20
    told look yes 120
    publish ping "$(ping -c 5 -i 0.2 -s 1400 10.0.0.2 | grep -o '[0-9]* packets received')"
    publish down "$(wget -q -O - http://10.0.0.2:7000/blob | md5sum | cut -c1-32)"
    publish state done
}

dom0() {
    start_image net
    start one
    start two
    await one state ready 60
    tell two look yes
    await two state done 90
    same "answers to five pings of 1400 bytes, from guest to guest" "$(value two ping)" "5 packets received"
    same "4 MiB from guest to guest" "$(value two down)" "$(value one blob)"
    end_image net
    same "the state of a guest's device after the end" "$(xenstore-read "/local/domain/$id_one/device/vif/0/state")" 6
}
