# A guest that lies about a disk, a net and a console: our driver domain stays up, and its neighbour's disk and net keep working.
limit=300
. /lab/load.sh

back_cfg="driver_domain=1"
neighbour_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/disk']
vif=['mac=00:16:3e:00:00:01,bridge=br0,backend=back']"
# The first channel is refused: see console-back.
liar_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/other']
vif=['mac=00:16:3e:00:00:02,bridge=br0,backend=back']
channel=['connection=pty,name=refused,backend=back', 'connection=pty,name=lab,backend=back']"
lied_to="vbd/51712 vif/0 console/1"

back() {
    dd if=/dev/zero of=/run/other bs=1M count=4 2>/dev/null
    served_by_us
    ping 10.0.0.99 >/dev/null &  # nobody: the question goes to all
    publish state ready
    told look yes 300
    kill -0 $devd || fail "devd has ended"
    publish crashes "$(dmesg | grep -c -i 'segfault\|out of memory')"
    publish state looked
}

neighbour() {
    publish state up
    told begin yes 90
    load_begins
    told stop yes 280
    load_ends
    publish state done
}

liar() {
    publish state up
    told begin yes 180
    # The kernel has taken the console: hvc_xen is built in. When it lets go it frees the page, whoever has it mapped.
    xenstore-write device/console/1/state 6
    try 60 console_closed || fail "the console's backend does not close"
    echo console-1 >/sys/bus/xen/drivers/xenconsole/unbind
    for device in $lied_to; do
        lab_liar device/$device 1 5 $((30 * patience)) >/tmp/lies-${device%/*} 2>&1 &
        try 100 grep -q '^end\|^error' /tmp/lies-${device%/*}
        sed "s|^|${device%/*}: |" /tmp/lies-${device%/*} | uniq -c
        publish "${device%/*}" "$(tail -n 1 /tmp/lies-${device%/*})"
    done
    publish state done
}

console_closed() { [ "$(xenstore-read "$(xenstore-read device/console/1/backend)/state")" = 6 ]; }

# Both are there before there is any load: libxl gives a backend ten seconds.
dom0() {
    start back
    await back state ready 60
    start neighbour
    start liar
    await liar state up 90
    tell neighbour begin yes
    await neighbour state busy 90
    tell liar begin yes
    await liar state done 220
    tell neighbour stop yes
    await neighbour state done 60
    tell back look yes
    await back state looked 60
    same "crashes in the driver domain" "$(value back crashes)" 0
    load_was_served neighbour
    for device in $lied_to; do
        set -- $(value liar "${device%/*}")
        [ "$1" = end ] || fail "the liar at $device: $*"
        say "$device: $2 lies: $3 broke the device, $4 were answered, $5 had to have a word and had none"
        same "lies about $device without a word" "$5" 0
        state=$(xenstore-read "/local/domain/$(id_of back)/backend/${device%/*}/$(id_of liar)/${device#*/}/state")
        case $state in 5 | 6) say "$device is closed: $state" ;; *) fail "$device is in state $state after its last lie" ;; esac
    done
    note "$(for device in $lied_to; do set -- $(value liar "${device%/*}"); echo "${device%/*}: $2 lies, broken $3, answered $4;"; done | tr '\n' ' ')"
}
