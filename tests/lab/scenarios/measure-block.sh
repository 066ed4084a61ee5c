# For `./dev bench lab`: one guest, three disks of the same kind in memory, behind our backend, Linux's and QEMU's; fio takes turns.
measures=yes
limit=900
memory=512

back_cfg="driver_domain=1"
peer_cfg="driver_domain=1"
guest_cfg="disk=['format=raw,vdev=xvda,access=w,backendtype=phy,backend=back,target=/dev/ram0',
                 'format=raw,vdev=xvdb,access=w,backendtype=phy,backend=peer,target=/dev/ram0',
                 'format=raw,vdev=xvdc,access=w,backendtype=qdisk,backend=peer,target=/dev/ram1']"

back() {
    modprobe brd rd_nr=1 rd_size=65536
    caisson devd &
    publish state ready
    wait
}

peer() {
    . /lab/kernel_backends.sh
    modprobe brd rd_nr=2 rd_size=65536
    kernel_backends &
    qemu_backends &
    publish state ready
    wait
}

guest() {
    modprobe xen-blkfront
    told rounds go 60
    rounds=$(xenstore-read data/measure-rounds) seconds=$(xenstore-read data/measure-seconds)
    disks=
    for disk in ours:xvda blkback:xvdb qdisk:xvdc; do
        try 30 test -b "/dev/${disk#*:}" && disks="$disks $disk" || say "no disk ${disk%:*}"
    done
    dmesg | grep 'blkfront: xvd'
    for disk in $disks; do dd if=/dev/zero of="/dev/${disk#*:}" bs=1M count=64 oflag=direct 2>/dev/null; done
    for round in $(seq "$rounds"); do
        jobs >/tmp/jobs
        fio --minimal /tmp/jobs >/tmp/figures || fail "fio: $(tail -1 /tmp/figures)"
        # Version 3 of fio's terse output: bandwidth in KiB/s, and requests a second.
        awk -F';' '{ print "FIGURE", $3, $7 + $48, $8 + $49 }' /tmp/figures
        say "round $round of $rounds"
    done
    publish complaints "$(dmesg | grep -c -i 'I/O error')"
    publish state done
}
jobs() {
    printf '%s\n' '[global]' ioengine=libaio direct=1 time_based "runtime=$seconds" ramp_time=1 norandommap randrepeat=0 \
        thread iodepth=32 size=64m
    for case in randread:4k randwrite:4k read:128k write:128k; do
        for disk in $disks; do
            printf '%s\n' "[${case%:*}/${disk%:*}]" stonewall "filename=/dev/${disk#*:}" "rw=${case%:*}" "bs=${case#*:}"
        done
    done
}

dom0() {
    for name in back peer; do start $name; done
    for name in back peer; do await $name state ready 120; done
    start guest
    measure guest
    await guest state done 800
    same "I/O errors" "$(value guest complaints)" 0
}
