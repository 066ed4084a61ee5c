# Our block backend in an unprivileged driver domain: Debian's own xen-blkfront reads, writes, flushes and discards a file there.
limit=240

back_cfg="driver_domain=1"
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/disk']"

back() {
    dd if=/dev/urandom of=/run/disk bs=64k count=256 2>/dev/null
    echo "a mark of the driver domain" | dd of=/run/disk conv=notrunc 2>/dev/null
    caisson devd &
    publish state ready
    told look yes 200
    publish written "$(dd if=/run/disk bs=64k skip=16 count=64 2>/dev/null | md5sum | cut -c1-32)"
    publish state looked
}

guest() {
    modprobe xen-blkfront
    try 60 test -b /dev/xvda || fail "no /dev/xvda"
    publish features "$(dmesg | sed -n 's/.*blkfront: xvda: //p' | tail -1)"
    publish bytes "$(blockdev --getsize64 /dev/xvda)"
    publish mark "$(dd if=/dev/xvda bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1)"
    dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null
    publish written "$(md5sum </tmp/data | cut -c1-32)"
    dd if=/tmp/data of=/dev/xvda bs=64k seek=16 oflag=direct conv=fsync 2>/dev/null || fail "a write failed"
    publish read "$(dd if=/dev/xvda bs=1M skip=1 count=4 iflag=direct 2>/dev/null | md5sum | cut -c1-32)"
    blkdiscard -o 0 -l 4096 /dev/xvda || fail "a discard failed"
    publish discarded "$(dd if=/dev/xvda bs=4096 count=1 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)"
    publish complaints "$(dmesg | grep -c -i 'I/O error')"
    publish state done
}

dom0() {
    start back
    await back state ready 60
    start guest
    await guest state done 150
    tell back look yes
    await back state looked 30
    say "features: $(value guest features)"
    same "the size of the disk" "$(value guest bytes)" $((256 * 65536))
    same "the guest reads" "$(value guest mark)" "a mark of the driver domain"
    same "4 MiB written, read by the guest" "$(value guest read)" "$(value guest written)"
    same "4 MiB written, read in the driver domain" "$(value back written)" "$(value guest written)"
    same "bytes left of a discarded block" "$(value guest discarded)" 0
    same "I/O errors" "$(value guest complaints)" 0
}
