# Linux's own backends in a driver domain, sourced by a scenario's function: what `xl devd` and its hotplug scripts do, no more.

# Runs for ever: a disk's target is a block device of this domain, a vif goes to the bridge that its configuration names.
# Ten quiet seconds after the last one it looks rarely: each look is programs that whoever measures would pay for.
kernel_backends() {
    modprobe xen-blkback; modprobe xen-netback; modprobe bridge
    looks=0 news=
    while sleep $((looks > 10 ? 60 : 1)); do
        for node in $(devices_of vbd); do
            plugged "$node" && continue
            news=yes looks=0
            disk=$(stat -c %t:%T "$(xenstore-read "$node/params")") && xenstore-write "$node/physical-device" "$disk" &&
                xenstore-write "$node/hotplug-status" connected
        done
        for node in $(devices_of vif); do
            plugged "$node" && continue
            news=yes looks=0
            vif=vif$(echo "${node#backend/vif/}" | tr / .)
            [ -d "/sys/class/net/$vif" ] || continue
            ip link set "$vif" master "$(xenstore-read "$node/bridge")" up && xenstore-write "$node/hotplug-status" connected
        done
        [ -z "$news" ] || looks=$((looks + 1))
    done
}
devices_of() {
    for front in $(xenstore-list "backend/$1" 2>/dev/null); do
        for device in $(xenstore-list "backend/$1/$front"); do echo "backend/$1/$front/$device"; done
    done
}
# libxl leaves the key empty for a vif.
plugged() { [ "$(xenstore-read "$1/hotplug-status" 2>/dev/null)" = connected ]; }

# QEMU's backend of disks, for the first guest that has one: a QEMU looks after the disks of one guest. It complains of the
# folders for older kinds of backends, which only Dom0 may make; a disk needs none of them.
qemu_backends() {
    try 300 xenstore-list backend/qdisk >/tmp/qdisk 2>/dev/null || return
    xen-qemu-system-i386 -no-user-config -xen-domid "$(head -n 1 /tmp/qdisk)" -xen-attach -name driver -nographic -M xenpv \
        -monitor /dev/null -serial /dev/null -parallel /dev/null </dev/null
}
