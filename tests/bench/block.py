"""A PV disk beside what it is measured against. Two kinds of load:

null, memory: our own generator, one CPU a side, both polling; data lies in the frontend's arena (block_trial).
fio: Debian's fio in a guest with our engine, beside the same job on what the storage domain serves, without a domain
     between: engine null, io_uring on the same file, nbd on nbdkit's memory.

The host's page cache and disk are everybody's: a file is one that the run makes, written before, and O_DIRECT."""
import concurrent.futures
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time

from bench import Bench, mood_of, run
from local_system import System, unwind_on_signals, visible

bench = Bench("block", __doc__)
quick = bench.options.quick
seconds, rounds = (1, 3) if quick else (4, 7)
MIB = 1 << 20
POLLED = "a polled vhost-user-blk target on such a machine"  # not in Debian: its figures are constants

folder = visible(os.path.join(os.path.dirname(os.environ["CAISSON"]), "..", "frontends"), ".so")
engine = os.path.join(folder, "caisson-fio.so")


# ---- Our own generator ---------------------------------------------------------------------------------------------

def polled():
    time = "50" if quick else "100"
    trials = "6" if quick else "20"
    cases = (("null_qd32", "32", "null:1G", "value", "requests/s", 5e6, False),
             ("null_qd1", "1", "null:1G", "mean_us", "us", 0.5, True),
             ("memory_qd32", "32", "memory:256M", "value", "requests/s", 1.03e6, False))
    for case, depth, target, field, unit, peer, less in cases:
        by_mood = {}
        said = run([bench.program("block_trial"), time, trials, depth, "4096", "randread", target])
        for line in said.splitlines():
            trial = json.loads(line)
            mood = mood_of(trial["before"], trial["after"])
            if mood is not None:
                by_mood.setdefault(mood, []).append((trial[field], peer))
        if not by_mood:
            bench.row(case, POLLED, unit, [])
        for mood, pairs in by_mood.items():
            bench.row(case, POLLED, unit, pairs, aim=1.0, mood=mood, less_is_better=less)


# ---- fio -----------------------------------------------------------------------------------------------------------

class Fio:
    """A job, in a guest or on the machine itself."""

    def __init__(self, system=None):
        self.system = system

    def __call__(self, field, way, **options):
        job = {"name": "job", "output-format": "json", "time_based": 1, "runtime": seconds, "norandommap": 1,
               "randrepeat": 0, **options}
        line = ["fio", *(f"--{key}={value}" for key, value in job.items())]
        said = (self.system.exec("guest", "cd /tmp && " + " ".join(line)) if self.system
                else run(line, cwd=tempfile.gettempdir()))
        found = json.loads(said[said.index("{"):])["jobs"][0][way]
        return found["iops"] if field == "iops" else found["clat_ns"]["mean"] / 1000


def beside(case, peer, ours, theirs, unit="requests/s", aim=None, less=False):
    """Alternating; ours and theirs are functions."""
    pairs = []
    for _ in range(rounds):
        bench.probe()
        pairs.append((ours(), theirs()))
    bench.row(case, peer, unit, pairs, aim=aim, less_is_better=less)
    return pairs


def with_fio(stack):
    files = {name: stack.enter_context(image_in(parent, size))
             for name, parent, size in (("file", os.environ.get("BENCH_FOLDER", "/var/tmp"), 256 * MIB),
                                        ("tmpfs", "/dev/shm", 256 * MIB))}
    system = stack.enter_context(System(os.environ["CAISSON"]))
    system.create("sys-storage", driver_domain=1, caisson_bind=[os.path.dirname(path) for path in files.values()])
    disks = {"xvda": f"null:{1024 * MIB}", "xvdb": f"memory:{256 * MIB}", "xvdc": files["file"], "xvdd": files["tmpfs"]}
    system.create("guest", caisson_bind=[folder],
                  disk=[f"vdev={name},backend=sys-storage,target={target}" for name, target in disks.items()],
                  caisson_disk=[f"vdev={name},claimed=1" for name in disks])
    inside, outside = Fio(system), Fio()
    ours = {"ioengine": "external:" + engine}

    def raw(name):
        return {"ioengine": "io_uring", "filename": files[name], "direct": 1 if name == "file" else 0}

    many, single = {"bs": "4k", "iodepth": 32}, {"bs": "4k", "iodepth": 1}
    beside("fio_null_qd32", "fio's engine null",
           lambda: inside("iops", "read", filename="xvda", rw="randread", **many, **ours),
           lambda: outside("iops", "read", ioengine="null", size="1g", rw="randread", **many), aim=0.8)
    beside("file_randwrite_qd32", "fio io_uring, same file",
           lambda: inside("iops", "write", filename="xvdc", rw="randwrite", **many, **ours),
           lambda: outside("iops", "write", rw="randwrite", **many, **raw("file")), aim=0.95)
    for way in "read", "write":
        beside(f"file_seq128k ({way})", "fio io_uring, same file",
               lambda: inside("iops", way, filename="xvdc", rw=way, bs="128k", iodepth=32, **ours),
               lambda: outside("iops", way, rw=way, bs="128k", iodepth=32, **raw("file")), aim=0.95)
    beside("tmpfs_randread_qd32", "fio io_uring, same file",
           lambda: inside("iops", "read", filename="xvdd", rw="randread", **many, **ours),
           lambda: outside("iops", "read", rw="randread", **many, **raw("tmpfs")), aim=0.95)
    pairs = beside("tmpfs_qd1_latency", "fio io_uring, same file",
                   lambda: inside("clat", "read", filename="xvdd", rw="randread", **single, **ours),
                   lambda: outside("clat", "read", rw="randread", **single, **raw("tmpfs")), unit="us", less=True)
    trip = min(bench.probes) / 1000
    extra = sorted(one - other for one, other in pairs)[len(pairs) // 2]
    bench.note(f"tmpfs_qd1_latency: {extra:.2f} us more than fio alone; aim: 2 bare round trips of a cache line, {2 * trip:.2f} us")
    bench.row("worker_memory", "the limit", "MiB", [(worker_memory(system, inside, {**many, **ours}), 8)], aim=1.0,
              less_is_better=True)
    against_nbdkit(inside, outside, ours, many)


def worker_memory(system, inside, options):
    """The most of its own that the worker of one disk has in memory under load, in MiB: what is shared (rings, journal, the
    guest's granted pages) is configured, and counted by others."""
    most = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        load = pool.submit(inside, "iops", "read", filename="xvdd", rw="randread", **options)
        while not load.done():
            most = max([most, *(own_memory(pid) for pid in system.workers("sys-storage", "/disk.img"))])
            time.sleep(0.05)
        load.result()
    return most


def own_memory(pid):
    with open(f"/proc/{pid}/status") as status:
        return sum(int(line.split()[1]) / 1024 for line in status if line.startswith(("RssAnon:", "RssFile:")))


def against_nbdkit(inside, outside, ours, many):
    if not shutil.which("nbdkit"):
        return bench.note("vs_nbdkit_qd32: skipped: nbdkit is not installed")
    with tempfile.TemporaryDirectory() as place:
        socket = os.path.join(place, "nbd")
        server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "memory", "256M"])
        try:
            while not os.path.exists(socket) and server.poll() is None:
                pass
            beside("vs_nbdkit_qd32", "nbdkit memory, fio's engine nbd",
                   lambda: inside("iops", "read", filename="xvdb", rw="randread", **many, **ours),
                   lambda: outside("iops", "read", ioengine="nbd", uri=f"nbd+unix:///?socket={socket}", rw="randread", **many),
                   aim=5)
        finally:
            server.terminate()
            server.wait()


@contextlib.contextmanager
def image_in(parent, size):
    """A written file of its own, in a folder of its own that any domain's user may enter."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="caisson-bench-") as place:
        os.chmod(place, 0o777)
        path = os.path.join(place, "disk.img")
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
            os.fsync(file.fileno())
        os.chmod(path, 0o666)
        yield path


def main():
    unwind_on_signals()
    polled()
    with contextlib.ExitStack() as stack:
        if not shutil.which("fio"):
            bench.note("the cases with fio: skipped: fio is not installed")
        elif not os.path.exists(engine):
            bench.note("the cases with fio: skipped: built without fio's source (./dev bench block fetches it)")
        else:
            with_fio(stack)
        bench.note("vs_qsd_vhost_user_blk: skipped: no client of vhost-user-blk is in Debian 12")
        bench.finish()


main()
