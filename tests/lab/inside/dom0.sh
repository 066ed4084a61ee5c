#!/bin/busybox sh
# PID 1 of Dom0: the store, the consoles, and the scenarios that the host asked for, one after the other.
. /lab/common.sh
boot
role=dom0
for module in virtio_pci 9pnet_virtio 9p; do modprobe $module; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /share
mkdir -p /share/out/console
read -r patience </share/patience
xenstored --pid-file /run/xen/xenstored.pid
try 10 xenstore-exists / 2>/dev/null
xen-init-dom0 >/dev/null
xenconsoled --log=all --log-dir=/share/out/console --pid-file=/run/xen/xenconsoled.pid
cp /share/vmlinux /share/*.img /run/
if [ -e /share/own-kernel ]; then cp /share/own-kernel /run/; fi
say "up"

# Everything of the last scenario goes: its domains, and what they said is kept in its folder.
tidy() {
    for id in $(xl list | sed -n '3,$s/^[^ ]* *\([0-9]*\).*/\1/p'); do xl destroy "$id"; done
    mv /share/out/console/* "$1/" 2>/dev/null
    mv /var/log/xen/* "$1/" 2>/dev/null
    for bridge in /sys/class/net/*/bridge; do [ ! -d "$bridge" ] || ip link del "$(basename "$(dirname "$bridge")")"; done
    rm -rf /run/*.cfg
}

run_one() {
    name=$1 out=/share/out/$1
    mkdir -p "$out"
    limit=$(sed -n 's/^limit=\([0-9]*\).*/\1/p' "/lab/scenarios/$name.sh")
    read -r from _ </proc/uptime
    echo "START $name" >>/share/out/results
    limit=$((${limit:-180} * patience))
    timeout $limit sh /lab/scenario.sh "$name" >"$out/dom0.log" 2>&1
    status=$?
    read -r to _ </proc/uptime
    if [ $status = 143 ]; then echo "took more than $limit s" >"$out/verdict"; fi
    xenstore-ls -fp >"$out/xenstore.txt"; xl dmesg -c >"$out/xen.txt"; dmesg -c >"$out/dmesg.txt"; xl list >"$out/domains.txt"
    tidy "$out"
    took=$(awk "BEGIN { printf \"%.1f\", $to - $from }")
    if [ $status = 0 ]; then echo "PASS $name $took $(cat "$out/note" 2>/dev/null)" >>/share/out/results
    else echo "FAIL $name $took $(cat "$out/verdict" 2>/dev/null || echo "status $status")" >>/share/out/results; fi
    say "$(tail -1 /share/out/results)"
}

if [ -e /share/interactive ]; then
    read -r name </share/scenarios
    mkdir -p "/share/out/$name"
    { echo ". /lab/scenario.sh $name shell"; } >/run/profile
    echo; echo "Dom0 of the lab. '(dom0)' runs the scenario '$name'; 'xl console NAME' looks into a domain (leave with Ctrl-])."
    echo "The functions of /lab/scenarios/$name.sh and /lab/scenario.sh are at hand. 'exit' ends the lab."
    ENV=/run/shell setsid cttyhack sh -c 'echo "set -- '"$name"' shell; . /lab/scenario.sh" >/run/shell; exec sh -i'
else
    while read -r name; do run_one "$name"; done </share/scenarios
fi
echo END >>/share/out/results
sync
poweroff -f
