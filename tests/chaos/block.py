"""Kills the workers of disks again and again, under load, and looks at what the guest notices.

A storage domain serves two files of the machine to a guest: one is /dev/xvda there, served by the guest's own worker, and
one is left to a program that brings the frontend with it (block::open_disk). A program in the guest (block_load.cpp)
writes, reads, discards and flushes at random, from 512 bytes to 1 MiB, and knows for each sector what it must hold. Every
kill is SIGKILL: to the worker in the storage domain, for the file in turns to the guest's worker, now and then to the
successor in the middle of taking over, and a few times to the program and the workers together.

Downtime is the time from the signal to the end of the first read of one sector that was asked for after it. What decides
is not time but counts: a write that was answered and is not there, a sector of two writes, a request that failed or was
never answered, a descriptor, a process, a grant, a mapping or a port more than before.
"""
import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from downtime import Answers, rows, table
from local_system import System, cmdline, descendants, descriptors, settle, unwind_on_signals

DISK_BYTES = 32 << 20
TWICE_EVERY = 3.0  # seconds: a worker that dies before it serves, again and again, is given up by its controller


class Load:
    """The program in the guest, from "ready" to its last word."""

    def __init__(self, system, folder, disk, seed):
        self.answers, self.counts, self.errors, self.end, self.ready = Answers(), [], [], None, threading.Event()
        model = f"{folder}/{os.path.basename(disk)}.model"
        self.process = subprocess.Popen(system.command("exec", "guest", "--", f"{folder}/load", disk, model, str(seed)),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if not self.ready.wait(60) or self.process.poll() is not None:
            sys.exit(f"chaos block: the disk {disk} could not be used")

    def read(self):
        for line in self.process.stdout:
            what, *words = line.rstrip("\n").split(maxsplit=7)
            if what == "probe":
                self.answers.put(*map(float, words))
            elif what == "done":
                self.counts.append(tuple(map(float, words[:2])))
            elif what == "end":
                self.end = dict(zip(("checked", "lost", "torn", "elsewhere", "errors", "requests"), map(int, words[:6])),
                                why="".join(words[6:]))
            elif what == "error":
                self.errors.append(line.strip())
            elif what == "ready":
                self.ready.set()
        self.ready.set()

    def stop(self):
        """What it found; None when it did not come to its end."""
        try:
            self.process.stdin.write("stop\n")
            self.process.stdin.close()
            self.process.wait(60)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
        self.reader.join(10)
        return self.end

    def done_at(self, moment):
        """How many requests had been answered, between the two reports around that moment."""
        before = max((one for one in self.counts if one[0] <= moment), default=self.counts[0])
        after = min((one for one in self.counts if one[0] > moment), default=self.counts[-1])
        part = (moment - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0
        return before[1] + part * (after[1] - before[1])


class Side:
    """One of the two workers of a disk: where it is, and what only it holds open."""

    def __init__(self, system, name, domain, holding):
        self.system, self.name, self.domain, self.holding = system, name, domain, holding
        self.last_twice = time.monotonic()

    def workers(self):
        return [pid for pid in self.system.processes(self.domain) if cmdline(pid)[1:2] == ["worker"]
                and any(one.endswith(self.holding) for one in descriptors(pid))]

    def kill(self, but=(), patience=10.0):
        """The moment of the signal; None when there was nobody to kill."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if pids := [pid for pid in self.workers() if pid not in but]:
                moment = time.monotonic()
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                return moment, pids
        return None, []


class Trial:
    """What one way to the disk went through, and what came of it."""

    def __init__(self, system, folder, disk, sides, options):
        self.system, self.folder, self.disk, self.sides, self.options = system, folder, disk, sides, options
        self.downtimes, self.found, self.ratios = {}, [], []
        self.hung = self.missed = self.programs_killed = 0

    def load(self):
        return Load(self.system, self.folder, self.disk, random.getrandbits(31))

    def kill(self, load, side):
        name = side.name
        moment, pids = side.kill()
        if time.monotonic() - side.last_twice > TWICE_EVERY and moment:
            name += ", and the next"
            moment, _ = side.kill(but=pids)
            side.last_twice = time.monotonic()
        if moment is None:
            self.missed += 1
            return True
        answered = load.answers.first_after(moment)
        if answered is None:
            self.hung += 1
            return False
        self.downtimes.setdefault(name, []).append((answered - moment) * 1e3)
        return True

    def kills(self, load, count):
        for i in range(count):
            if not self.kill(load, self.sides[i % len(self.sides)]):
                return
            time.sleep(random.uniform(0, 2) * self.options.pause)

    def kill_program(self, load):
        """The program and the workers at once: what it wrote and was not told of may be there or not, but whole."""
        for pid in self.system.processes("guest") + descendants(load.process.pid):
            if cmdline(pid)[:1] == [f"{self.folder}/load"]:
                os.kill(pid, signal.SIGKILL)
        for side in self.sides:
            side.kill(patience=0.1)
        load.process.wait(60)
        load.reader.join(10)
        self.found.append({"errors": len(load.errors), "why": "".join(load.errors[:1])})
        self.programs_killed += 1

    def run(self, kills):
        rounds = 2 + kills // 200
        for i in range(rounds):
            load = self.load()
            self.kills(load, kills * (i + 1) // rounds - kills * i // rounds)
            if self.hung:
                break
            if i + 1 < rounds:
                self.kill_program(load)
        if not self.hung:
            self.throughput(load)
        self.end(load)

    def throughput(self, load):
        """Two seconds without a kill, two with a kill a second, again and again."""
        windows = []
        for i in range(int(self.options.throughput / 2)):
            start = time.monotonic()
            for moment in (0.5, 1.5) if i % 2 else ():
                time.sleep(max(0.0, start + moment - time.monotonic()))
                self.sides[0].kill()
            time.sleep(max(0.0, start + 2 - time.monotonic()))
            windows.append((start, start + 2))
        if windows:
            time.sleep(0.3)  # for the last report
        rates = [(load.done_at(end) - load.done_at(start)) / 2 for start, end in windows]
        self.ratios = [(with_kills / without, without) for without, with_kills in zip(rates[::2], rates[1::2]) if without]

    def end(self, load):
        found = load.stop()
        self.found.append(found or {"why": "the program did not come to its end"})
        if not found:
            self.hung += 1

    def count(self, what):
        return sum(one.get(what, 0) for one in self.found)


def idle_census(system, sides):
    """With workers that have just begun: what they keep mapped from request to request does not count."""
    for side in sides:
        side.kill()
    return settle(system.census)


def main():
    parser = argparse.ArgumentParser(prog="chaos block", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.06, metavar="SECONDS", help="between two kills, on average")
    parser.add_argument("--throughput", type=float, default=20, metavar="SECONDS",
                        help="how long it is compared, with a kill a second and without; 0: not at all")
    parser.add_argument("--directory", help="where the disks' files are (default: /dev/shm, else where temporary files are)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--caisson", default=os.environ.get("CAISSON"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    random.seed(options.seed)
    unwind_on_signals()
    where = options.directory or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix="caisson-chaos-", dir=where) as folder, System(options.caisson) as system:
        trials, leaks = run(options, folder, system)
    good = report(options, trials, leaks)
    return 0 if good else 1


def run(options, folder, system):
    os.chmod(folder, 0o777)  # root of a domain may be nobody in particular here
    shutil.copy(os.path.join(os.environ["PROGRAMS"], "block_load"), f"{folder}/load")
    for name in ("a.img", "b.img"):
        with open(f"{folder}/{name}", "wb") as file:
            file.truncate(DISK_BYTES)
        os.chmod(f"{folder}/{name}", 0o666)
    fuse = os.access("/dev/fuse", os.R_OK | os.W_OK)
    if not fuse:
        print("skipped: the disk as a file, for want of /dev/fuse")
    system.create("sys-storage", driver_domain=1, caisson_bind=[folder])
    system.create("guest", caisson_bind=[folder] + ["/dev/fuse"] * fuse,
                  disk=[f"vdev=xvda,backend=sys-storage,target={folder}/a.img"] * fuse +
                       [f"vdev=xvdb,backend=sys-storage,target={folder}/b.img"],
                  caisson_disk=["vdev=xvdb,claimed=1"])
    library = [Side(system, "backend, library", "sys-storage", "/b.img")]
    file = [Side(system, "backend, file", "sys-storage", "/a.img"), Side(system, "frontend, file", "guest", "/dev/fuse")]
    trials = [Trial(system, folder, "xvdb", library, options)]
    if fuse:
        trials.append(Trial(system, folder, "/dev/xvda", file, options))
    for one in trials:
        one.end(one.load())  # once without kills: what the first use of a disk leaves is not a leak
    sides = file if fuse else []
    before = idle_census(system, sides)
    through_library = options.kills // 3 if fuse else options.kills
    for one, kills in zip(trials, (through_library, options.kills - through_library)):
        one.run(kills)
    after = idle_census(system, sides)
    return trials, [f"{domain}: {what} {before[domain][what]} -> {count}" for domain, counts in after.items()
                    for what, count in counts.items() if count > before[domain][what]]


def report(options, trials, leaks):
    found = rows({name: values for one in trials for name, values in one.downtimes.items()})
    table(found)
    good, told = not leaks, []
    for one in trials:
        counts = {what: one.count(what) for what in ("checked", "lost", "torn", "elsewhere", "errors", "requests")}
        good = good and not (one.hung or any(counts[what] for what in ("lost", "torn", "elsewhere", "errors")))
        good = good and one.missed <= options.kills // 10
        print(f"\n{one.disk}: {counts['requests']} requests, {counts['checked']} sectors checked, programs killed: {one.programs_killed}")
        print(f"  acknowledged writes lost: {counts['lost']}; sectors torn: {counts['torn']}; in the wrong place: {counts['elsewhere']}; "
              f"errors: {counts['errors']}; requests hung: {one.hung}; kills without a worker to kill: {one.missed}")
        for why in {one["why"] for one in one.found if one["why"]}:
            print(f"  {why}")
        ratio = statistics.median(value for value, _ in one.ratios) if one.ratios else None
        if ratio is not None:
            print(f"  throughput with a kill a second: {ratio:.1%} of {statistics.median(rate for _, rate in one.ratios):.0f} requests/s without "
                  f"(median of {len(one.ratios)}, {min(one.ratios)[0]:.1%} to {max(one.ratios)[0]:.1%})")
        told.append({"disk": one.disk, **counts, "hung": one.hung, "missed": one.missed, "throughput_ratio": ratio})
    print(f"\nleaks: {len(leaks)}{''.join(chr(10) + '  ' + one for one in leaks)}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"chaos": "block", "rows": found, "disks": told, "leaks": leaks}, file, indent=1)
    return good


sys.exit(main())
