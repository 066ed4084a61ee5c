"""What a guest loses when its neighbour on the same network domain attacks it, the driver domain or the hypervisor.

The peer in each row is the same pair of guests while the neighbour only burns as much CPU on something of its own: these
machines have two CPUs, and what a process takes by merely running is not the attack's doing.
"""
import os
import re
import subprocess
import time

from bench import Bench
from local_system import System

bench = Bench("neighbour", __doc__)
seconds, rounds = (1, 5) if bench.options.quick else (3, 9)
UPLINK = "192.0.2.2"

PACKETS = """
import socket, sys, time
frame = bytes.fromhex(sys.argv[2]) + bytes.fromhex("00163e666666") + bytes.fromhex("0800") + bytes(46)
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); out.bind((sys.argv[1], 0))
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    try: out.send(frame)
    except OSError: pass
"""
LOOP = "end=$(( $(date +%s) + {seconds} )); while [ $(date +%s) -lt $end ]; do {body}; done"

# name: (the attack, the same work turned on oneself)
ATTACKS = {
    "spoofed source address": (f"python3 -c '{PACKETS}' eth0 ffffffffffff {{seconds}}",
                               f"python3 -c '{PACKETS}' lo ffffffffffff {{seconds}}"),
    "xenstore writes": (LOOP.format(seconds="{seconds}", body="xenstore-write data/x $RANDOM 2>/dev/null"),
                        LOOP.format(seconds="{seconds}", body="xenstore-write -h >/dev/null 2>&1")),
    "frontend killed again and again": (LOOP.format(seconds="{seconds}", body="pkill -9 -x worker; pkill -9 -f frontd; sleep 0.02"),
                                        LOOP.format(seconds="{seconds}", body="pkill -9 -x nobody; pkill -9 -f nothing-like-it; sleep 0.02")),
}


def throughput(system):
    said = system.exec("victim", f"iperf3 -c {UPLINK} -t {seconds} -f m")
    return float(re.findall(r"([\d.]+) Mbits/sec.*receiver", said)[-1])


def beside(system, script):
    """The victim's throughput while `script` runs in the neighbour."""
    attack = system.start("attacker", script.replace("{seconds}", str(seconds + 2)),
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    found = throughput(system)
    attack.kill()
    attack.wait()
    system.exec("attacker", "pkill -9 python3; true")
    return found


with System(os.environ["CAISSON"]) as system:
    system.create("sys-net", driver_domain=1, caisson_uplink=f"sandbox,ip={UPLINK}/24,peer=192.0.2.1/24")
    for i, name in enumerate(("victim", "attacker")):
        address = f"10.137.0.{2 + i}"
        system.create(name, vif=[f"backend=sys-net,ip={address},gatewaydev=uplink0"],
                      caisson_net=[f"dev=eth0,ip={address}/32,gateway={UPLINK}"])
    server = system.start("sys-net", "exec iperf3 -s", stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    for name, (attack, idle) in ATTACKS.items():
        pairs = [(beside(system, attack), beside(system, idle)) for _ in range(rounds)]
        bench.row(f"neighbour ({name})", "same CPU use", "Mbit/s", pairs, aim=0.95)
    server.kill()
bench.finish()
