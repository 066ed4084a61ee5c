# Sourced by everything that runs in the lab: Dom0's and the domains' first steps, and the words that both have.

export PATH=/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C

boot() {
    mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
    mkdir -p /dev/pts; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
    mkdir -p /run/lock /run/xen /run/xenstored /run/caisson
    # The hotplug scripts' locking loops for ever without /dev/stdin.
    ln -sf /proc/self/fd /dev/fd; ln -sf fd/0 /dev/stdin; ln -sf fd/1 /dev/stdout; ln -sf fd/2 /dev/stderr
    for module in xenfs xen-privcmd xen-evtchn xen-gntdev; do modprobe $module; done
    modprobe xen-gntalloc limit=16384
    mount -t xenfs xenfs /proc/xen
    ip link set lo up
}

say() { read -r up _ </proc/uptime; echo "[$up] $role: $*"; }

# try SECONDS COMMAND...: until it succeeds. All seconds are those of an idle machine: a busy one has a larger $patience.
patience=1
try() {
    tries=$(($1 * 5 * patience)); shift
    until "$@"; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1)); sleep 0.2
    done
}
