# Our block backend feature by feature under stock xen-blkfront; the guest's root file system lies on our disk, too.
limit=260
memory=320

back_cfg="driver_domain=1"
guest_words="root=/dev/xvda"
guest_cfg="vcpus=2
disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/run/root',
      'format=raw,vdev=xvdb,access=w,backendtype=phy,backend=back,target=/run/data']"

back() {
    mkdir -p /tmp/root/proc /tmp/root/sys /tmp/root/dev /tmp/root/run /tmp/root/tmp
    cp -a /bin /sbin /usr /lib /lib64 /etc /lab /tmp/root/
    rm -f /tmp/root/usr/bin/test_* /tmp/root/usr/bin/caisson  # the guest needs none of them, and copying is slow
    touch /tmp/root/on-disk
    /usr/bin/mke2fs -q -t ext4 -d /tmp/root /run/root 80M || fail "mke2fs"
    rm -rf /tmp/root
    dd if=/dev/urandom of=/run/data bs=1M count=8 2>/dev/null
    caisson devd &
    publish state ready
    told look written 200
    publish written "$(dd if=/run/data bs=1M count=4 2>/dev/null | md5sum | cut -c1-32)"
    publish blocks-before "$(stat -c %b /run/data)"
    publish state written
    told look discarded 60
    publish blocks-after "$(stat -c %b /run/data)"
    truncate -s 16M /run/data
    xenstore-write "backend/vbd/$(xenstore-read data/guest)/51728/caisson-resize" 1
    publish state resized
    told look end 60
    publish tail "$(dd if=/run/data bs=1M skip=15 2>/dev/null | md5sum | cut -c1-32)"
    publish state looked
}

guest() {
    publish root "$(sed -n 's|^\([^ ]*\) / ext4 .*|\1|p' /proc/mounts)"
    queue=/sys/block/xvdb/queue
    publish features "$(dmesg | sed -n 's/.*blkfront: xvdb: //p' | tail -1)"
    publish queues "$(ls /sys/block/xvdb/mq | wc -l)"
    publish cache "$(cat $queue/write_cache)"
    publish request-kb "$(cat $queue/max_hw_sectors_kb)"
    publish discard-max "$(cat $queue/discard_max_bytes)"
    dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
    publish data "$(md5sum </tmp/data | cut -c1-32)"
    for cpu in 0 1; do  # a queue for each processor
        taskset -c $cpu dd if=/tmp/data of=/dev/xvdb bs=1M skip=$((2 * cpu)) seek=$((2 * cpu)) count=2 oflag=direct \
            conv=notrunc,fsync 2>/dev/null || fail "a write on processor $cpu failed"
    done
    publish read "$(dd if=/dev/xvdb bs=1M count=4 iflag=direct 2>/dev/null | md5sum | cut -c1-32)"
    grep blkif /proc/interrupts
    publish busy-queues "$(grep blkif /proc/interrupts | awk '$2 + $3 > 4' | wc -l)"
    publish state written
    told look discard 60
    blkdiscard -o 0 -l 4194304 /dev/xvdb || fail "a discard failed"
    publish zeros "$(dd if=/dev/xvdb bs=1M count=4 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)"
    publish state discarded
    try 60 grown || fail "the size stayed $(blockdev --getsize64 /dev/xvdb)"
    dd if=/tmp/data of=/dev/xvdb bs=1M count=1 seek=15 oflag=direct conv=notrunc,fsync 2>/dev/null || fail "a write at the new end"
    publish tail "$(dd if=/tmp/data bs=1M count=1 2>/dev/null | md5sum | cut -c1-32)"
    sync && echo "written to the root" >/kept && sync && publish kept "$(cat /kept)"
    publish complaints "$(dmesg | grep -c -i -e 'I/O error' -e 'EXT4-fs error')"
    publish state done
}
grown() { [ "$(blockdev --getsize64 /dev/xvdb)" = 16777216 ]; }

key() { xenstore-read "/local/domain/$(id_of guest)/device/vbd/51728/$1"; }
dom0() {
    start back
    await back state ready 100
    start guest
    tell back guest "$(id_of guest)"
    await guest state written 200
    tell back look written
    await back state written 30
    tell guest look discard
    await guest state discarded 60
    tell back look discarded
    await back state resized 30
    await guest state done 60
    tell back look end
    await back state looked 30
    say "blkfront says: $(value guest features)"
    same "the guest's root" "$(value guest root)" /dev/xvda
    same "written to it" "$(value guest kept)" "written to the root"
    same "queues that were agreed on" "$(key multi-queue-num-queues)" 2
    same "queues of the disk" "$(value guest queues)" 2
    [ "$(value guest busy-queues)" -ge 3 ] || fail "only $(value guest busy-queues) queues of the two disks were used"
    same "pages of a ring, as an order" "$(key ring-page-order)" 1
    key queue-1/ring-ref1 >/dev/null || fail "the second queue has no second page"
    same "persistent grants" "$(key feature-persistent)" 1
    same "KiB in a request, by indirect segments" "$(value guest request-kb)" 256
    same "the cache" "$(value guest cache)" "write back"
    same "4 MiB in requests of 256 KiB, read by the guest" "$(value guest read)" "$(value guest data)"
    same "the same, in the driver domain" "$(value back written)" "$(value guest data)"
    [ "$(value guest discard-max)" -gt 0 ] || fail "no discard"
    same "bytes left after a discard" "$(value guest zeros)" 0
    [ "$(value back blocks-after)" -le $(($(value back blocks-before) - 8192)) ] || fail "the discard gave nothing back"
    same "1 MiB behind the old end" "$(value back tail)" "$(value guest tail)"
    same "complaints of the guest's kernel" "$(value guest complaints)" 0
}
