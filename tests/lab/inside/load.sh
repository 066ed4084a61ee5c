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

# fio_verifies DISK SIZE [MORE...]: every block of it written once, in any order, and read again.
fio_verifies() {
    file=$1 size=$2; shift 2
    fio --name=load --filename="$file" --size="$size" --rw=randwrite --bs=16k --direct=1 --ioengine=libaio --iodepth=16 \
        --verify=crc32c --verify_fatal=1 --thread "$@"
}
# netserver_or_iperf3 [COMMAND...]: in the background, by that command. netperf_or_iperf3 CASE ADDRESS SECONDS. netperf is not
# free software; where it is not installed iperf3 stands in, which has no TCP_RR.
netserver_or_iperf3() { if type netserver >/dev/null 2>&1; then "$@" netserver >/dev/null; else "$@" iperf3 -s -D; fi; }
netperf_or_iperf3() {
    if type netperf >/dev/null 2>&1; then netperf -H "$2" -t "$1" -l "$3" -P 0
    elif [ "$1" = TCP_MAERTS ]; then iperf3 -R -c "$2" -t "$3"
    else iperf3 -c "$2" -t "$3"
    fi
}
# in_turns NAME COMMAND...: until /tmp/enough is there, and then "RUNS FAILED" is in /tmp/NAME.sum.
in_turns() {
    name=$1 runs=0 failed=0; shift
    until [ -e /tmp/enough ]; do
        runs=$((runs + 1))
        "$@" >"/tmp/$name" 2>&1 || { failed=$((failed + 1)); say "$name failed: $(tail -3 "/tmp/$name")"; }
    done
    echo "$runs $failed" >"/tmp/$name.sum"
}

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
