# Our block frontend as a disk of the guest's kernel (nbd): a file system on it, killed workers, another size.
limit=260

back_cfg="driver_domain=1"
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/disk']"

back() {
    dd if=/dev/zero of=/run/disk bs=1M count=16 2>/dev/null
    echo "a mark of the backend" | dd of=/run/disk conv=notrunc 2>/dev/null
    caisson devd &
    publish state ready
    told grow yes 240
    truncate -s 24M /run/disk
    xenstore-write "backend/vbd/$(xenstore-read data/guest)/51712/caisson-resize" 1
    publish state grown
}

sectors() { cat "/sys/block/$(basename "$(readlink "/dev/$1")")/size"; }
has_sectors() { [ "$(sectors "$1")" = "$2" ]; }
# All workers that serve a disk now, whatever they are doing.
kill_workers() {
    for maps in $(grep -l caisson-block-journal /proc/[0-9]*/maps 2>/dev/null); do
        pid=${maps#/proc/}; pid=${pid%/maps}
        [ "$pid" = "$frontd" ] || { kill -9 "$pid" && kills=$((kills + 1)); }
    done
}

guest() {
    modprobe nbd; modprobe crc32c_generic; modprobe ext4
    caisson frontd & frontd=$!
    try 60 test -b /dev/xvda || fail "no disk /dev/xvda"
    publish link "$(readlink /dev/xvda)"
    publish sectors "$(sectors xvda)"
    publish mark "$(head -n 1 /dev/xvda)"
    /usr/bin/mke2fs -q -t ext4 /dev/xvda || fail "no file system"
    mkdir /tmp/disk
    mount -t ext4 /dev/xvda /tmp/disk || fail "not mounted"
    kills=0
    (for i in 1 2 3 4 5 6 7 8; do
        dd if=/dev/urandom bs=64k count=12 2>/dev/null | tee /tmp/$i | dd of=/tmp/disk/$i bs=64k conv=fsync 2>/dev/null || : >/tmp/failed
    done; : >/tmp/written) &
    until [ -e /tmp/written ]; do kill_workers; sleep 1; done
    [ ! -e /tmp/failed ] || fail "a write failed"
    umount /tmp/disk || fail "not unmounted"
    echo 3 >/proc/sys/vm/drop_caches
    mount -t ext4 /dev/xvda /tmp/disk || fail "not mounted again"
    for i in 1 2 3 4 5 6 7 8; do
        cmp /tmp/$i /tmp/disk/$i || fail "file $i is another one"
    done
    publish kills "$kills"
    umount /tmp/disk || fail "in use"
    publish state checked
    try 60 has_sectors xvda 49152 || fail "the disk did not grow"
    kill $frontd
    try 30 sh -c '! [ -L /dev/xvda ]' || fail "frontd has ended, and the disk is there"
    publish errors "$(dmesg | grep -c 'nbd.*error\|I/O error\|nbd.*stuck')"
    publish state done
}

dom0() {
    start back
    await back state ready 60
    start guest
    tell back guest "$(id_of guest)"
    await guest state checked 200
    same "the disk in the guest" "$(value guest link)" "/dev/nbd0"
    same "its sectors" "$(value guest sectors)" 32768
    same "the guest reads" "$(value guest mark)" "a mark of the backend"
    [ "$(value guest kills)" -ge 4 ] || fail "only $(value guest kills) kills"
    tell back grow yes
    await guest state done 100
    same "errors in the guest's kernel" "$(value guest errors)" 0
    note "$(value guest kills) kills of its workers under a file system"
}
