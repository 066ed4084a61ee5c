# Caisson finds real Xen's port in an unprivileged domain, and both of its controllers start there.
limit=90

back_cfg="driver_domain=1"

back() {
    for device in gntdev gntalloc evtchn xenbus; do [ -e /dev/xen/$device ] || fail "no /dev/xen/$device"; done
    caisson devd >/run/devd.log 2>&1 & devd=$!
    caisson frontd >/run/frontd.log 2>&1 & frontd=$!
    sleep 3
    cat /run/*.log
    kill -0 $devd || fail "devd: $(tail -1 /run/devd.log)"
    kill -0 $frontd || fail "frontd: $(tail -1 /run/frontd.log)"
    publish state served
}

dom0() {
    start back
    await back state served 60
}
