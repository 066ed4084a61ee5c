"""A local hypervisor with domains, for benchmarks and chaos runs: what a person does with `caisson`, from Python.

    with System(caisson) as system:
        system.create("sys-net", driver_domain=1)
        system.create("guest", vif=["backend=sys-net,ip=10.137.0.2"], caisson_net=["ip=10.137.0.2/32,gateway=..."])
        system.exec("guest", "ping -c1 10.137.0.1")
"""
import atexit
import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time


def visible(folder, ending):
    """The files of a folder that end so, in one that every domain's user may enter; a checkout may be its owner's alone.
    Gone with this process."""
    place = tempfile.mkdtemp(prefix="caisson-visible-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    os.chmod(place, 0o755)
    for name in os.listdir(folder):
        if name.endswith(ending):
            shutil.copy(os.path.join(folder, name), place)
            os.chmod(os.path.join(place, name), 0o755)
    return place


class Failed(Exception):
    pass


def skip(why):
    """For ctest, which knows this number."""
    print("skipped:", why)
    sys.exit(77)


PREFIX = "caisson-system-"


def unwind_on_signals():
    """SIGTERM and its like end this process as an exception does: what was set up is taken down."""
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, lambda number, _: sys.exit(128 + number))


class System:
    def __init__(self, caisson):
        if b"__tsan_init" in open(caisson, "rb").read():
            skip("the thread sanitizer's own thread keeps 'caisson exec' out of domains")
        self.caisson, self.state = caisson, tempfile.mkdtemp(prefix=PREFIX)
        self.pids = {}  # PID 1 of each domain
        self.owner = open(os.path.join(self.state, "owner"), "w")
        fcntl.flock(self.owner, fcntl.LOCK_EX)  # as long as this process lives

    def __enter__(self):
        self.remove_leftovers()
        self.run("hypervisor", "--daemon")
        return self

    def __exit__(self, *_):
        self.remove(self.state)

    def remove(self, state):
        subprocess.run([self.caisson, "--state", state, "shutdown"], capture_output=True)
        shutil.rmtree(state, ignore_errors=True)

    def remove_leftovers(self):
        """Systems whose owner was killed too hard to do it."""
        for state in glob.glob(os.path.join(tempfile.gettempdir(), PREFIX + "*")):
            with contextlib.suppress(OSError), open(os.path.join(state, "owner"), "r+") as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while the owner lives
                self.remove(state)

    def command(self, *words):
        return [self.caisson, "--state", self.state, *words]

    def run(self, *words, timeout=60):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise Failed(f"caisson {' '.join(words)}: exit {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def file(self, name, text):
        """The path of a file that goes with the system."""
        path = os.path.join(self.state, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def create(self, name, **keys):
        self.pids.pop(name, None)
        # xl's lists and strings read as JSON's do
        cfg = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"name": name, **keys}.items())
        self.run("create", self.file(name + ".cfg", cfg), "--wait")

    def exec(self, domain, script, timeout=120):
        """Standard output of a shell script in a domain."""
        return self.run("exec", domain, "--", "sh", "-c", script, timeout=timeout)

    def start(self, domain, script, **more):
        """The same, running."""
        return subprocess.Popen(self.command("exec", domain, "--", "sh", "-c", script), text=True, **more)

    def domains(self):
        return {one["name"]: one for one in json.loads(self.run("list", "--json"))}

    def processes(self, domain):
        """Pids of everything that runs in a domain, its PID 1 first."""
        if domain not in self.pids:
            self.pids[domain] = self.domains()[domain]["pid"]
        return descendants(self.pids[domain])

    def workers(self, domain, holding):
        """Pids of the domain's workers that hold a descriptor of `holding` ("/dev/net/tun"): those that serve, not the
        spares that wait."""
        inside = self.processes(domain)
        return [pid for pid in inside if cmdline(pid)[1:2] == ["worker"] and any(one.endswith(holding) for one in descriptors(pid))]

    def census(self):
        """What may not grow: descriptors and processes of each domain's services, and what the hypervisor counts."""
        counts = {}
        for name, one in self.domains().items():
            family = descendants(one["pid"]) if "pid" in one else []  # Dom0 has no PID 1 of its own
            services = [pid for pid in family if cmdline(pid)[1:2] in (["devd"], ["frontd"], ["worker"])]
            counts[name] = {"processes": len(services), "descriptors": sum(len(descriptors(pid)) for pid in services),
                            **{key: one[key] for key in ("grants", "mappings", "ports") if key in one}}
        return counts


def settle(look, patience=10.0):
    """The first answer of look() that stays the same for half a second: spares and late messages take a moment."""
    until, last, since = time.monotonic() + patience, look(), time.monotonic()
    while time.monotonic() < until:
        time.sleep(0.1)
        now = look()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 0.5:
            break
    return last


def descendants(pid):
    found = [pid]
    for parent in found:
        try:
            with open(f"/proc/{parent}/task/{parent}/children") as children:
                found += [int(word) for word in children.read().split()]
        except OSError:
            pass
    return found


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")[:-1]
    except OSError:
        return []


def descriptors(pid):
    found = []
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    except OSError:
        pass
    return found


def cpu_seconds(pids):
    """What the processes have used so far, in user and in system mode."""
    total = 0.0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            pass
    return total
