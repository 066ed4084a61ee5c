# Our console backend in an unprivileged driver domain: the guest's second console is Debian's own hvc_xen.
limit=150

back_cfg="driver_domain=1"
# xl 4.17 gives the first channel the number of the primary console and then refuses it; the second is console 1, hvc1.
guest_cfg="channel=['connection=pty,name=refused,backend=back', 'connection=pty,name=lab,backend=back']"

back() {
    caisson devd &
    publish state ready
    try 60 xenstore-exists data/guest
    guest=$(xenstore-read data/guest)
    try 20 tty_of "$guest" >/dev/null || fail "the backend published no tty"
    tty=$(tty_of "$guest")
    stty -F "$tty" raw -echo 2>/dev/null
    exec 3<>"$tty"
    read -r line <&3
    publish heard "$line"
    echo "a word from the driver domain" >&3
    head -c 200000 <&3 | md5sum | cut -c1-32 >/tmp/bulk
    publish bulk "$(cat /tmp/bulk)"
    publish state done
}
tty_of() { xenstore-read "backend/console/$1/1/tty" 2>/dev/null; }

guest() {
    try 20 test -c /dev/hvc1 || fail "no /dev/hvc1"
    exec 3<>/dev/hvc1
    stty -F /dev/hvc1 raw -echo
    echo "a word from the guest" >&3
    read -r line <&3
    publish heard "$line"
    seq 1 40000 | head -c 200000 >/tmp/bulk
    publish bulk "$(md5sum </tmp/bulk | cut -c1-32)"
    cat /tmp/bulk >&3
    publish state done
}

dom0() {
    start back
    await back state ready 60
    start guest
    tell back guest "$(id_of guest)"
    await guest state done 90
    await back state done 30
    same "what the backend heard" "$(value back heard)" "a word from the guest"
    same "what the guest heard" "$(value guest heard)" "a word from the driver domain"
    same "200 kB printed by the guest" "$(value back bulk)" "$(value guest bulk)"
}
