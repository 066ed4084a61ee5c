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

# make_bridge ADDRESS: br0, for the vifs of whoever has backends here.
make_bridge() {
    modprobe bridge
    ip link add br0 type bridge
    ip addr add "$1/24" dev br0
    ip link set br0 up
}
# join_net DEVICE ADDRESS PEER SECONDS: the device up with its address, and an answer from the peer through it.
join_net() {
    ip addr add "$2/24" dev "$1"
    ip link set "$1" up
    try "$4" ping -c 1 -W 1 "$3" >/dev/null || fail "no answer to a ping through $1"
}

# try SECONDS COMMAND...: until it succeeds. All seconds are those of an idle machine: a busy one has a larger $patience.
patience=1
try() {
    tries=$(($1 * 5 * patience)); shift
    until "$@"; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1)); sleep 0.2
    done
}
