#!/bin/busybox sh
# PID 1 of a domain of the lab: runs the function of the scenario that has the domain's name.
. /lab/common.sh
[ -e /proc/self ] || boot  # not again on the root that switch_root came to
word() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
role=$(word role) scenario=$(word scenario) patience=$(word patience)

# root=/dev/xvda: the rest happens on that disk, whose file system has what this initramfs has.
disk=$(word root)
if [ -n "$disk" ] && [ ! -e /on-disk ]; then
    # Not Linux's own (one page, 32 segments), and not the most: blkfront allocates for a full ring of the largest requests.
    modprobe xen-blkfront max_ring_page_order=1 max_indirect_segments=64; modprobe crc32c_generic; modprobe ext4
    mkdir /disk
    try 60 mount -t ext4 "$disk" /disk || say "no root on $disk"
    for folder in proc sys dev run tmp; do mount --move /$folder /disk/$folder; done
    exec switch_root /disk /lab/domain.sh
fi

# ---- Words of a scenario, inside a domain ----

# publish KEY VALUE: for Dom0 to read, in the domain's own part of xenstore.
publish() { say "$1 = $2"; xenstore-write "data/$1" "$2"; }
# Ends the scenario.
fail() { publish failed "$*"; exit 1; }
# same WHAT GOT WANTED
same() { [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"; say "$1: $2"; }
# told KEY VALUE SECONDS: waits until Dom0 has said so.
heard() { [ "$(xenstore-read "data/$1" 2>/dev/null)" = "$2" ]; }
told() {
    seconds=$(($3 * patience))
    until heard "$1" "$2"; do
        [ "$seconds" -gt 0 ] || fail "Dom0 did not say $1=$2"
        seconds=$((seconds - 1)); sleep 1  # a new program is dear under emulation, and others are at work meanwhile
    done
}

mount --make-rshared /  # as systemd has it: what is unmounted here, no worker keeps in use
say "up, domain $(xenstore-read domid)"
. "/lab/scenarios/$scenario.sh"
("$role") || publish failed "its part ended with status $?"
say "end"
while sleep 1000; do :; done
