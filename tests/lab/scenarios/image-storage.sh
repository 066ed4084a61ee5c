# A service VM that serves a disk, built as images/storage.recipe is: Debian's own xen-blkfront writes and reads it; it ends in order.
limit=240

storage_image=ram-disk
storage_cfg="driver_domain=1"
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=storage,target=/dev/ram0']"

guest() {
    modprobe xen-blkfront
    try 60 test -b /dev/xvda || fail "no /dev/xvda"
    publish bytes "$(blockdev --getsize64 /dev/xvda)"
    dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
    publish written "$(md5sum </tmp/data | cut -c1-32)"
    dd if=/tmp/data of=/dev/xvda bs=64k seek=16 oflag=direct conv=fsync 2>/dev/null || fail "a write failed"
    publish read "$(dd if=/dev/xvda bs=1M skip=1 count=4 iflag=direct 2>/dev/null | md5sum | cut -c1-32)"
    publish complaints "$(dmesg | grep -c -i 'I/O error')"
    publish state done
}

dom0() {
    start_image storage
    start guest
    await guest state done 150
    same "the size of the disk" "$(value guest bytes)" $((16384 * 1024))
    same "4 MiB written, read by the guest" "$(value guest read)" "$(value guest written)"
    same "I/O errors" "$(value guest complaints)" 0
    end_image storage
}
