"""Kills the workers of a network device again and again, under load, and looks at what the guest notices.

A guest sends echoes every millisecond and two TCP streams run, one each way, all through one driver domain. Every kill is
SIGKILL to the worker that serves the device: in the driver domain (backend) and in the guest (frontend) in turns.

Downtime is the time from the signal to the first answer to an echo that was sent after it. What decides is not time but
counts: a TCP connection lost or with other bytes than were sent, an echo that never gets through again, a descriptor, a
grant, a mapping or a port more than before.
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

from downtime import Answers, percentile, rows, table
from local_system import System, settle

ADDRESS, TARGET = "10.137.0.2", "192.0.2.2"

SERVER = """
import hashlib, socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("", 7))
def echo():
    while True:
        data, peer = udp.recvfrom(2048)
        try: udp.sendto(data, peer)
        except OSError: pass
threading.Thread(target=echo, daemon=True).start()
def sink(peer):          # reads to the end, answers with what it saw
    digest, count = hashlib.sha256(), 0
    while data := peer.recv(1 << 16): digest.update(data); count += len(data)
    peer.sendall(f"{digest.hexdigest()} {count}".encode()); peer.close()
def source(peer):        # writes until the other side closes its half, then says what it wrote
    peer.setblocking(True); digest, count, block = hashlib.sha256(), 0, bytes(range(256)) * 64
    stop = threading.Event()
    threading.Thread(target=lambda: (peer.recv(1), stop.set()), daemon=True).start()
    while not stop.is_set():
        block = block[1:] + block[:1]
        peer.sendall(len(block).to_bytes(4, "big") + block); digest.update(block); count += len(block)
    peer.sendall(bytes(4) + f"{digest.hexdigest()} {count}".encode()); peer.close()
def serve(port, how):
    listener = socket.create_server(("", port))
    while True: threading.Thread(target=how, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=serve, args=(5001, sink), daemon=True).start()
print("ready", flush=True)
serve(5002, source)
"""

ECHOES = """
import socket, sys, threading, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect((sys.argv[1], 7))
def answers():
    while True:
        try: sent = udp.recv(64).decode()
        except OSError: continue
        print(sent, repr(time.monotonic()), flush=True)
threading.Thread(target=answers, daemon=True).start()
while True:
    try: udp.send(repr(time.monotonic()).encode())
    except OSError: pass
    time.sleep(0.001)
"""

UPLOAD = """
import hashlib, select, socket, sys
peer, digest, count, block = socket.create_connection((sys.argv[1], 5001)), hashlib.sha256(), 0, bytes(range(256)) * 64
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    block = block[1:] + block[:1]
    peer.sendall(block); digest.update(block); count += len(block)
peer.shutdown(socket.SHUT_WR)
said = b""
while data := peer.recv(4096): said += data
print("same" if said.decode() == f"{digest.hexdigest()} {count}" else "other", count, flush=True)
"""

DOWNLOAD = """
import hashlib, select, socket, sys
peer, digest, count = socket.create_connection((sys.argv[1], 5002)), hashlib.sha256(), 0
stream = peer.makefile("rb")
print("ready", flush=True)
stopped = False
while True:
    if not stopped and select.select([sys.stdin], [], [], 0)[0]: peer.sendall(b"x"); stopped = True
    length = int.from_bytes(stream.read(4), "big")
    if length == 0: break
    block = stream.read(length); digest.update(block); count += len(block)
print("same" if stream.read().decode() == f"{digest.hexdigest()} {count}" else "other", count, flush=True)
"""


def python(system, domain, program, *words):
    """A program running in a domain."""
    return subprocess.Popen(system.command("exec", domain, "--", "python3", "-u", "-c", program, *words),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def echoes_of(process):
    """What a running program of ECHOES says."""
    answers = Answers()

    def read():
        for line in process.stdout:
            answers.put(*map(float, line.split()))
    threading.Thread(target=read, daemon=True).start()
    return answers


def main():
    parser = argparse.ArgumentParser(prog="chaos net", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.15, metavar="SECONDS", help="between two kills, on average")
    parser.add_argument("--echoes-only", action="store_true", help="without the TCP streams, whose queues an echo waits in")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--caisson", default=os.environ.get("CAISSON"), help=argparse.SUPPRESS)
    options = parser.parse_args()

    with System(options.caisson) as system:
        system.create("sys-net", driver_domain=1, caisson_uplink=f"sandbox,ip={TARGET}/24,peer=192.0.2.1/24")
        system.create("guest", vif=[f"backend=sys-net,ip={ADDRESS},gatewaydev=uplink0"],
                      caisson_net=[f"dev=eth0,ip={ADDRESS}/32,gateway={TARGET}"])
        server = python(system, "sys-net", SERVER)
        assert server.stdout.readline() == "ready\n"
        sides = [("backend", "sys-net"), ("frontend", "guest")]
        before = settle(system.census)
        echoes = echoes_of(python(system, "guest", ECHOES, TARGET))
        programs = {} if options.echoes_only else {"guest to driver domain": UPLOAD, "driver domain to guest": DOWNLOAD}
        streams = {name: python(system, "guest", program, TARGET) for name, program in programs.items()}
        for name, stream in streams.items():
            if stream.stdout.readline() != "ready\n":
                sys.exit(f"chaos net: the stream {name} could not be opened")
        downtimes = {side: [] for side, _ in sides}
        hung = missed = 0
        for i in range(options.kills):
            side, domain = sides[i % 2]
            pids = system.workers(domain, "/dev/net/tun")
            if not pids:
                missed += 1
                time.sleep(0.2)
                continue
            moment = time.monotonic()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            arrived = echoes.first_after(moment)
            if arrived is None:
                hung += 1
                break
            downtimes[side].append((arrived - moment) * 1e3)
            if sys.stderr.isatty():
                print(f"\r{i + 1} kills of {options.kills}", end="", file=sys.stderr)
            time.sleep(random.uniform(0.5, 1.5) * options.pause)

        lost = []
        for name, stream in streams.items():
            try:
                said, _ = stream.communicate("stop\n", timeout=60)
            except subprocess.TimeoutExpired:
                stream.kill()
                said = "no end"
            if not said.startswith("same"):
                lost.append(f"{name}: {said.strip() or 'ended early'}")
        subprocess.run(system.command("exec", "guest", "--", "pkill", "-f", "time.sleep"), capture_output=True)
        server.kill()
        after = settle(system.census)
        leaks = [f"{domain}: {what} {before[domain][what]} -> {count}" for domain, counts in after.items()
                 for what, count in counts.items() if count > before[domain][what]]

    report(options, downtimes, hung, missed, lost, leaks, echoes.trips)
    return 1 if hung or lost or leaks or missed > options.kills // 10 else 0


def report(options, downtimes, hung, missed, lost, leaks, trips):
    found = rows(downtimes)
    table(found)
    print(f"an echo's own round trip beside the streams, kills included: p50 {statistics.median(trips):.2f} ms, "
          f"p90 {percentile(trips, 90):.2f} ms, of {len(trips)}")
    print(f"devices that did not come back: {hung}; kills without a worker to kill: {missed}")
    print(f"TCP connections lost or changed: {len(lost)} of {0 if options.echoes_only else 2}{''.join(chr(10) + '  ' + one for one in lost)}")
    print(f"leaks: {len(leaks)}{''.join(chr(10) + '  ' + one for one in leaks)}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"chaos": "net", "rows": found, "echo_p50_ms": statistics.median(trips), "hung": hung, "lost": lost, "leaks": leaks}, file, indent=1)


sys.exit(main())
