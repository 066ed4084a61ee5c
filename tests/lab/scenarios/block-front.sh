# Our block frontend in a guest (a file /dev/xvda) against Debian's own xen-blkback in Dom0: features, reads, writes, discards.
limit=200

guest_cfg="vcpus=2
disk=['format=raw,vdev=xvda,access=w,backendtype=phy,target=/dev/loop0']"

guest() {
    modprobe fuse
    caisson frontd &
    try 60 test -f /dev/xvda || fail "no /dev/xvda"
    publish bytes "$(stat -c %s /dev/xvda)"
    publish mark "$(head -n 1 /dev/xvda)"
    dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
    publish data "$(md5sum </tmp/data | cut -c1-32)"
    dd if=/tmp/data of=/dev/xvda bs=1M seek=1 conv=notrunc,fsync 2>/dev/null || fail "a write failed"
    publish read "$(dd if=/dev/xvda bs=1M skip=1 count=4 2>/dev/null | md5sum | cut -c1-32)"
    /usr/bin/fallocate -p -o 0 -l 4096 /dev/xvda || fail "a discard failed"
    publish discarded "$(head -c 4096 /dev/xvda | tr -d '\0' | wc -c)"
    publish state done
}

key() { xenstore-read "/local/domain/$(id_of guest)/device/vbd/51712/$1"; }
dom0() {
    modprobe xen-blkback; modprobe loop
    dd if=/dev/urandom of=/run/disk bs=1M count=8 2>/dev/null
    echo "a mark of Dom0" | dd of=/run/disk conv=notrunc 2>/dev/null
    losetup /dev/loop0 /run/disk
    start guest
    await guest state done 150
    xenstore-ls -f "/local/domain/$(id_of guest)/device/vbd"
    xenstore-ls -f "/local/domain/0/backend/vbd"
    same "the size of the disk" "$(value guest bytes)" 8388608
    same "the guest reads" "$(value guest mark)" "a mark of Dom0"
    same "pages of the ring, as an order" "$(key ring-page-order)" 2
    same "persistent grants" "$(key feature-persistent)" 1
    same "4 MiB, read by the guest" "$(value guest read)" "$(value guest data)"
    same "4 MiB, in Dom0's file" "$(dd if=/run/disk bs=1M skip=1 count=4 2>/dev/null | md5sum | cut -c1-32)" "$(value guest data)"
    same "bytes left of a discarded block" "$(value guest discarded)" 0
}
