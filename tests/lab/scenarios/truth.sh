# What libxl writes into xenstore for each kind of device is what tests/lab/truth/ says, which the local toolstack's test reads.
limit=260

back_cfg="driver_domain=1"
guest_cfg="$(grep -v '^#' /lab/truth/guest.cfg)"
devices_cfg="$(grep -v '^#' /lab/truth/devices.cfg)"

# It plays the states that libxl waits for, and says nothing else.
back() {
    publish state ready
    while sleep 0.3; do
        for node in $(xenstore-ls -f backend 2>/dev/null | sed -n 's|^\(backend/.*\)/state = "1"$|\1|p'); do
            xenstore-write "$node/state" 2
        done
    done
}

# One line a node, sorted; the domains have names, and what differs from boot to boot is "*".
dump() {
    guest=$(id_of "$1") back=$(id_of back) uuid=$(xenstore-read "/local/domain/$(id_of "$1")/vm"); uuid=${uuid#/vm/}
    { xenstore-ls -fp "/local/domain/$guest"; xenstore-ls -fp "/libxl/$guest"; xenstore-ls -fp "/vm/$uuid"
      xenstore-ls -fp "/local/domain/$back/backend"; } |
        grep -E "^/(local/domain|libxl)/$guest|^/vm|/backend/[a-z]*/$guest(/| |$)" |
        sed -E -e "s#$uuid#UUID#g" -e "s#/(domain|libxl)/$guest(/|\"| )#/\1/GUEST\2#g" -e "s#/domain/$back(/|\"| )#/domain/BACK\1#g" \
            -e "s#(/backend/[a-z]*)/$guest(/|\"| )#\1/GUEST\2#g" -e "s#(frontend-id = |domid = )\"$guest\"#\1\"GUEST\"#" \
            -e "s#(backend-id = )\"$back\"#\1\"BACK\"#" -e "s#([(,][nrwb])$guest([,)])#\1GUEST\2#g" \
            -e "s#([(,][nrwb])$back([,)])#\1BACK\2#g" -e "s#(start_time|port|ring-ref|target|static-max|cmdline|console/tty) = \"[^\"]*\"#\1 = \"*\"#" \
            -e "s#(/backend/.*/state) = \"2\"#\1 = \"1\"#" | LC_ALL=C sort
}

dom0() {
    start back
    await back state ready 60
    status=0
    for name in guest devices; do
        paused=-p start $name
        dump $name >"$out/$name.txt"
        if ! cmp "$out/$name.txt" "/lab/truth/$name.txt"; then status=1; diff "/lab/truth/$name.txt" "$out/$name.txt"; fi
    done
    [ $status = 0 ] || fail "libxl writes something else than what was recorded: see dom0.log"
}
