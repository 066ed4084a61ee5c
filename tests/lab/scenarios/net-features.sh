# Our net backend feature by feature under stock xen-netfront: queues, split channels, scatter-gather, GSO, checksums, multicast.
limit=240

back_cfg="driver_domain=1"
guest_cfg="vcpus=2
vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back']"

back() {
    modprobe tun
    make_bridge 10.0.0.1
    /usr/bin/ip addr add fd00::1/64 dev br0 nodad
    echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts
    dd if=/dev/urandom of=/tmp/blob bs=64k count=64 2>/dev/null
    httpd -p 7000 -h /tmp
    publish blob "$(md5sum </tmp/blob | cut -c1-32)"
    caisson devd &
    publish state ready
    told look yes 200
    cd /sys/class/net/vif*.0/statistics
    for address in 4@10.0.0.2 6@[fd00::2]; do
        bytes=$(cat rx_bytes) packets=$(cat rx_packets)
        publish "received-${address%@*}" "$(wget -q -O - "http://${address#*@}:7000/up" | md5sum | cut -c1-32)"
        publish "large-${address%@*}" $((($(cat rx_bytes) - bytes) / ($(cat rx_packets) - packets)))
    done
    publish multicast "$(ping -c 3 -i 0.3 -I br0 224.0.0.1 | grep -o '[0-9]* packets received')"
    publish state looked
}

guest() {
    modprobe xen-netfront
    join_net eth0 10.0.0.2 10.0.0.1 20
    /usr/bin/ip addr add fd00::2/64 dev eth0 nodad
    echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts
    try 20 ping6 -c 1 -W 1 fd00::1 >/dev/null || fail "no answer to a ping over IPv6: neighbours are found by multicast"
    publish multicast "$(ping -c 3 -i 0.3 -I eth0 224.0.0.1 | grep -o '[0-9]* packets received')"
    ethtool -k eth0 >/tmp/offloads
    for feature in tx-checksumming rx-checksumming scatter-gather tcp-segmentation-offload tx-tcp6-segmentation; do
        publish "ethtool/$feature" "$(sed -n "s/^[ \t]*$feature: \([a-z]*\).*/\1/p" /tmp/offloads)"
    done
    publish queues "$(ls -d /sys/class/net/eth0/queues/tx-* | wc -l)"
    cd /sys/class/net/eth0/statistics
    for address in 4@10.0.0.1 6@[fd00::1]; do
        bytes=$(cat rx_bytes) packets=$(cat rx_packets)
        publish "down-${address%@*}" "$(wget -q -O - "http://${address#*@}:7000/blob" | md5sum | cut -c1-32)"
        publish "large-${address%@*}" $((($(cat rx_bytes) - bytes) / ($(cat rx_packets) - packets)))
    done
    cd /
    # Each connection has a queue by its hash: the second is used after a few of them.
    try 10 both_queues || say "not all queues were used"
    grep eth0 /proc/interrupts
    publish idle-queues "$(grep 'eth0-q' /proc/interrupts | awk '$2 + $3 == 0' | wc -l)"
    dd if=/dev/urandom of=/tmp/up bs=64k count=32 2>/dev/null
    publish sent "$(md5sum </tmp/up | cut -c1-32)"
    httpd -p 7000 -h /tmp
    publish state done
}
both_queues() {
    wget -q -O /dev/null http://10.0.0.1:7000/blob
    [ "$(grep 'eth0-q' /proc/interrupts | awk '$2 + $3 == 0' | wc -l)" = 0 ]
}

key() { xenstore-read "/local/domain/$(id_of guest)/device/vif/0/$1"; }
dom0() {
    start back
    await back state ready 60
    start guest
    await guest state done 150
    tell back look yes
    await back state looked 60
    same "queues that were agreed on" "$(key multi-queue-num-queues)" 2
    same "queues of the interface" "$(value guest queues)" 2
    same "event channels without an event" "$(value guest idle-queues)" 0
    for queue in 0 1; do
        [ "$(key queue-$queue/event-channel-tx)" != "$(key queue-$queue/event-channel-rx)" ] || fail "the channels are not split"
    done
    for feature in feature-sg feature-gso-tcpv4 feature-gso-tcpv6 feature-ipv6-csum-offload feature-rx-notify request-rx-copy; do
        same "the frontend's $feature" "$(key $feature)" 1
    done
    same "the frontend's feature-no-csum-offload" "$(key feature-no-csum-offload 2>/dev/null)" ""
    for feature in tx-checksumming rx-checksumming scatter-gather tcp-segmentation-offload tx-tcp6-segmentation; do
        same "$feature in the guest" "$(value guest "ethtool/$feature")" on
    done
    for version in 4 6; do
        same "4 MiB to the guest over IPv$version" "$(value guest down-$version)" "$(value back blob)"
        same "2 MiB from the guest over IPv$version" "$(value back received-$version)" "$(value guest sent)"
        [ "$(value guest large-$version)" -gt 3000 ] || fail "no GSO to the guest: $(value guest large-$version) bytes a packet"
        [ "$(value back large-$version)" -gt 3000 ] || fail "no GSO from the guest: $(value back large-$version) bytes a packet"
    done
    same "answers to multicast pings, to the driver domain" "$(value guest multicast)" "3 packets received"
    same "answers to multicast pings, to the guest" "$(value back multicast)" "3 packets received"
}
