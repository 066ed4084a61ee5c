#!/bin/busybox sh
# Dom0's part of one scenario: scenario.sh NAME. Its exit status is the verdict; $out/verdict says why it failed.
. /lab/common.sh
role=dom0 scenario=$1 out=/share/out/$1
read -r patience </share/patience
. "/lab/scenarios/$scenario.sh"

# ---- Words of a scenario, inside Dom0 ----

fail() { say "FAIL $*"; echo "$*" >"$out/verdict"; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"; say "$1: $2"; }
# note WORDS: what the table of results says beside a pass.
note() { say "$*"; echo "$*" >"$out/note"; }
# start NAME: a domain with what NAME_cfg says, in which the function NAME runs; NAME_words are for its kernel's command line.
# `paused=-p start NAME`: made, but it never runs. NAME_image: a service VM's image, in which nothing of the scenario runs;
# its kernel is the one that the run was told, or NAME_kernel. NAME_fio=yes: fio is in it, and memory= has to have room for that.
# NAME_layout: a file of images/layouts/, of which what the lab says here takes the place.
start() {
    describe "$1"
    say "start $1"
    # libxl gives a backend ten seconds, whatever the machine: a busy one gets more tries.
    attempts=$patience
    until xl create -q $paused "/run/$1.cfg"; do
        attempts=$((attempts - 1))
        [ $attempts -gt 0 ] || fail "xl create $1"
    done
    eval "id_$1=$(xl domid "$(name_of "$1")")"
    ids="$ids $(id_of "$1")"
}
# describe NAME: only /run/NAME.cfg, for others to start.
describe() {
    eval "words=\$${1}_words image=\$${1}_image fio=\$${1}_fio kernel=\$${1}_kernel layout=\$${1}_layout"
    name=$1
    [ -n "$kernel" ] || if [ -n "$image" ] && [ -e /run/own-kernel ]; then kernel=/run/own-kernel; else kernel=/run/vmlinux; fi
    [ -z "$fio" ] || image=with-fio
    [ -z "$layout" ] || name=$(sed -n 's/^name = "\(.*\)"/\1/p' "/lab/layouts/$layout.cfg")
    eval "name_$1=$name"
    { [ -z "$layout" ] || grep -v '^bootloader' "/lab/layouts/$layout.cfg"
      printf '%s\n' "name='$name'" "kernel='$kernel'" "ramdisk='/run/${image:-domain}.img'" "memory=${memory:-224}" "on_reboot='destroy'" \
        "extra='console=hvc0 quiet role=$1 scenario=$scenario patience=$patience $words'"
      eval "printf '%s\n' \"\$${1}_cfg\""; } >"/run/$1.cfg"
}
ids=
id_of() { eval "echo \$id_$1"; }  # xl is slow under emulation: it is asked once
name_of() { eval "echo \$name_$1"; }  # to xl
# value NAME KEY: what the domain published.
value() { xenstore-read "/local/domain/$(id_of "$1")/data/$2" 2>/dev/null; }
# tell NAME KEY VALUE: what the domain's told() waits for.
tell() { xenstore-write "/local/domain/$(id_of "$1")/data/$2" "$3"; xenstore-chmod "/local/domain/$(id_of "$1")/data/$2" "n$(id_of "$1")"; }
# start_image NAME: a service VM, until it says that it is ready. end_image NAME: xl shutdown, until it is gone, of its own
# will. Between the two its heart has to beat.
start_image() {
    memory=${memory:-96} begin "$1" 90 settled "$1"
    is "$1" service/state ready || fail "$1 is not ready: $(value "$1" service/state) $(value "$1" service/why)"
    read -r to _ </proc/uptime
    begun=$(value "$1" service/heartbeat)
    eval "file=\$${1}_image"
    [ ! -e /run/own-kernel ] || small "$file"
    note "$file: $(($(stat -c %s "/run/$file.img") / 1024)) KiB, ready $(awk "BEGIN { printf \"%.1f\", $to - $from }") s after xl create" \
        "(its kernel's $(value "$1" service/uptime) ms), $(value "$1" service/memory) KiB of $(xl list "$(name_of "$1")" | awk 'END { print $3 }') MiB in use"
}
# small IMAGE: with the kernel of our own, it is at most ten MiB.
small() {
    sum=$(($(stat -c %s /run/own-kernel) + $(stat -c %s "/run/$1.img")))
    [ $sum -le $((10 << 20)) ] || fail "$1 and its kernel are $sum bytes"
    say "$1 and its kernel are $sum bytes"
}
end_image() {
    try 20 lives_on "$1" || fail "the heart of $1 stands still"
    same "restarts of $1's controllers" "$(value "$1" service/restarts)" 0
    say "memory of $1 at its end: $(value "$1" service/memory) KiB"
    xl shutdown "$(name_of "$1")"
    try 60 gone "$1" || fail "$1 does not end"
    same "how $1 ended" "$(grep -o 'has shut down, reason code [0-9]*' "/var/log/xen/xl-$(name_of "$1").log")" "has shut down, reason code 0"
}
is() { [ "$(value "$1" "$2")" = "$3" ]; }
settled() { is "$1" service/state ready || is "$1" service/state failed; }
# begin NAME SECONDS COMMAND...: a domain, until the command succeeds. The virtualisation that QEMU emulates at times loses a PVH
# domain's kernel in its first second (a triple fault, before anything of ours runs in it): then there is another one.
begin() {
    for attempt in 1 2 3; do
        read -r from _ </proc/uptime
        start "$1"
        try "$2" up_or_lost "$@"
        lost "$1" || break
        say "kernel $attempt of $1 was lost as it started"
    done
}
up_or_lost() { lost "$1" || { shift 2; "$@"; }; }
lost() { pvh "$1" && gone "$1"; }
pvh() { eval "case \$${1}_cfg in *type=\'pvh\'*) ;; *) false ;; esac"; }
lives_on() { [ "$(value "$1" service/heartbeat)" -gt "$begun" ]; }
gone() { ! xenstore-exists "/local/domain/$(id_of "$1")"; }
# measure NAME: the host asked for so many rounds of so many seconds (/share/measure).
measure() {
    read -r rounds seconds </share/measure
    tell "$1" measure-rounds "$rounds"
    tell "$1" measure-seconds "$seconds"
    tell "$1" rounds go
}
# await NAME KEY VALUE SECONDS: until the domain has published it.
await() {
    path=/local/domain/$(id_of "$1")/data i=$(($4 * patience))
    until [ "$(xenstore-read "$path/$2" 2>/dev/null)" = "$3" ]; do
        for id in $ids; do
            why=$(xenstore-read "/local/domain/$id/data/failed" 2>/dev/null) && fail "domain $id: $why"
        done
        [ "$i" -gt 0 ] || fail "$1 did not publish $2=$3 in $4 s"
        i=$((i - 1)); sleep 1
    done
    say "$1 published $2=$3"
}

[ "$2" != shell ] || return 0 2>/dev/null
(dom0)
