# Sourced by scenarios whose guest uses /dev/xvda and eth0 (10.0.0.2) while something happens to the driver domain "back": every byte is checked.

# served_by_us: in the driver domain; /run/disk and 10.0.0.1 on br0, behind our backends.
served_by_us() {
    modprobe tun
    make_bridge 10.0.0.1
    dd if=/dev/zero of=/run/disk bs=1M count=16 2>/dev/null
    lab_traffic serve 7001 &
    httpd -p 7000 -h /tmp
    caisson devd & devd=$!
}
load_begins() {
    modprobe xen-blkfront; modprobe xen-netfront
    try 60 test -b /dev/xvda || fail "no /dev/xvda"
    join_net eth0 10.0.0.2 10.0.0.1 20
    load_starts
    attachments >/tmp/attachments; dmesg >/tmp/dmesg
    publish state busy
}
# The two are there, whoever made them.
load_starts() {
    mkfifo /tmp/stop-disk /tmp/stop-net
    exec 4<>/tmp/stop-disk 5<>/tmp/stop-net
    block_load /dev/xvda /tmp/model 1 $no_discard </tmp/stop-disk >/tmp/disk 2>&1 & disk=$!
    lab_traffic ask 10.0.0.1 7001 </tmp/stop-net >/tmp/net 2>&1 & net=$!
    try 60 grep -q ^ready /tmp/disk || fail "the disk: $(tail -1 /tmp/disk)"
}
load_ends() {
    load_stops
    attachments | cmp - /tmp/attachments || fail "a device was attached anew"
    dmesg | diff /tmp/dmesg - | grep '^>'
    publish words "$(dmesg | diff /tmp/dmesg - | grep -c '^>')"
}
load_stops() {
    echo >&4; echo >&5
    wait $disk; wait $net
    grep -h ^error /tmp/disk /tmp/net
    publish disk "$(sed -n 's/^end //p' /tmp/disk)"
    publish net "$(sed -n 's/^end //p' /tmp/net)"
}
# The states, rings and event channels of both devices: another attachment has others.
attachments() { xenstore-ls device; }

# In Dom0, what the guest NAME found at its end: load_was_served NAME after load_ends, load_was_whole NAME after load_stops.
load_was_served() {
    same "words of the kernel of $1" "$(value "$1" words)" 0
    load_was_whole "$1"
}
load_was_whole() {
    say "the disk of $1 (sectors checked, lost, torn, elsewhere, errors, requests): $(value "$1" disk)"
    say "the net of $1 (messages, bytes, errors): $(value "$1" net)"
    set -- "$1" $(value "$1" disk)
    same "sectors lost, torn, elsewhere, and errors of the disk" "$3 $4 $5 $6" "0 0 0 0"
    set -- "$1" $(value "$1" net)
    same "errors of the net" "$4" 0
}
