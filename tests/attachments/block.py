"""Programs of others on a PV disk: nbdkit with NBD clients, and fio with our engine, in a guest of a local hypervisor.

usage: block.py nbdkit|fio
"""
import json
import os
import shlex
import shutil
import signal
import sys
import time

from local_system import Failed, System, cmdline, descendants, settle, skip, unwind_on_signals, visible

MIB = 1 << 20
FOLDER = visible(os.path.join(os.path.dirname(os.environ["CAISSON"]), "..", "frontends"), ".so")
PLUGIN, ENGINE = os.path.join(FOLDER, "nbdkit-caisson-plugin.so"), os.path.join(FOLDER, "caisson-fio.so")
IMAGE = "/tmp/disk.img"  # in the storage domain


def check(what, is_so):
    if not is_so:
        raise Failed("not so: " + what)
    print("ok:", what, flush=True)


def fails(system, script, with_words):
    """The script ends with an error that has these words."""
    said = system.exec("guest", f"({script}) 2>&1 && echo no error at all; true")
    if with_words not in said or "no error at all" in said:
        raise Failed(f"not an error with {with_words!r}: {script}\n{said}")
    print("ok:", with_words, "is said", flush=True)


def start(system):
    """A guest with a disk in memory, one in a file and one that may only be read, all left to programs; and one that is
    not."""
    system.create("sys-storage", driver_domain=1)
    system.exec("sys-storage", f"truncate -s {64 * MIB} {IMAGE}")
    system.create("guest", caisson_bind=[FOLDER],
                  disk=[f"vdev=xvda,backend=sys-storage,target=memory:{64 * MIB}",
                        f"vdev=xvdb,backend=sys-storage,target={IMAGE}",
                        f"vdev=xvdc,backend=sys-storage,access=ro,target=memory:{MIB}",
                        f"vdev=xvdd,backend=sys-storage,target=memory:{MIB}"],
                  caisson_disk=[f"vdev={name},claimed=1" for name in ("xvda", "xvdb", "xvdc")])


def image_digest(system):
    return system.exec("sys-storage", f"sha256sum <{IMAGE}")


# ---- nbdkit --------------------------------------------------------------------------------------------------------

def served(disk, script):
    """A shell line that runs another one with $uri of the disk."""
    return f"cd /tmp && nbdkit -U - {PLUGIN} {disk} --run '{script}'"


def nbdkit(system):
    def info(disk):
        return json.loads(system.exec("guest", served(disk, 'nbdinfo --json "$uri"')))["exports"][0]

    for disk, size, read_only in ("xvda", 64 * MIB, False), ("xvdb", 64 * MIB, False), ("xvdc", MIB, True):
        seen = info(disk)
        check(f"{disk} has its size", seen["export-size"] == size)
        check(f"{disk} is read-only: {read_only}", seen["is_read_only"] is read_only)
        check(f"{disk} can be flushed, by any of many connections", seen["can_flush"] and seen["can_multi_conn"])
        check(f"{disk} says its block sizes", seen["block_size_minimum"] == 512 and seen["block_size_preferred"] == 4096)
        if not read_only:
            check(f"{disk} has FUA and trim", seen["can_fua"] and seen["can_trim"])

    system.exec("guest", f"head -c {50 * MIB} /dev/urandom >/tmp/data && truncate -s {64 * MIB} /tmp/data")
    for disk in "xvda", "xvdb":
        system.exec("guest", served(disk, 'nbdcopy --flush /tmp/data "$uri"'))
        system.exec("guest", served(disk, 'nbdcopy "$uri" /tmp/back && cmp /tmp/data /tmp/back; status=$?; '
                                          'rm -f /tmp/back; exit $status'))
        system.exec("guest", served(disk, 'qemu-img compare -f raw -F raw /tmp/data "$uri"'))
        check(f"{disk} holds what was copied to it, by nbdcopy and by qemu-img", True)
    check("the file in the storage domain does, too",
          image_digest(system) == system.exec("guest", "sha256sum </tmp/data"))

    system.exec("guest", served("xvdb", 'qemu-io -f raw -c "write -f -P 165 1M 3M" -c "read -P 165 1M 3M" '
                                        '-c "discard 8M 1M" -c flush "$uri"'))
    check("a write with FUA is in the file", system.exec(
        "sys-storage", f"tail -c +{MIB + 1} {IMAGE} | head -c {3 * MIB} | tr -d '\\245' | wc -c").strip() == "0")
    fails(system, served("xvdc", 'qemu-io -f raw -c "write 0 4k" "$uri"'), "Permission denied")
    fails(system, served("xvda", f'nbdinfo "$uri" >/dev/null && nbdkit -f -U /tmp/second {PLUGIN} xvda'), "another program has the disk")
    fails(system, f"nbdkit -f {PLUGIN} xvdd", "the domain's own frontend serves the disk")
    check("disks that are left to programs are no files", system.exec("guest", "ls /dev | grep ^xvd[abc]; true") == "")
    fails(system, f"nbdkit -f {PLUGIN} xvdq", "no such disk")
    fails(system, "timeout 60 sh -c " + shlex.quote(served("xvdq", 'nbdinfo "$uri"')), "no such disk")
    fails(system, f"nbdkit -f {PLUGIN} eth0", "is no name like")


# ---- fio -----------------------------------------------------------------------------------------------------------

def fio_line(disk, **options):
    job = {"name": "job", "filename": disk, "ioengine": "external:" + ENGINE, "output-format": "json", **options}
    return "cd /tmp && timeout 100 fio " + " ".join(f"--{key}={value}" for key, value in job.items())


def fio(system):
    def run(disk, **options):
        said = system.exec("guest", fio_line(disk, **options))
        job = json.loads(said[said.index("{"):])["jobs"][0]
        check("zero copy is possible", "no zero copy" not in said)
        check(f"{disk} without an error: {options}", job["error"] == 0)
        return job

    verified = {"rw": "randwrite", "bs": "4k", "iodepth": 32, "verify": "crc32c", "size": 16 * MIB}
    for disk in "xvda", "xvdb":
        for zero_copy in 0, 1:
            job = run(disk, **verified, zero_copy=zero_copy)
            check("all was written and read", all(job[way]["io_bytes"] == 16 * MIB for way in ("read", "write")))
    run("xvdb", **{**verified, "bs": "512"}, poll_us=0)
    run("xvdb", **{**verified, "bs": "128k", "fsync": 8}, ring_order=0)
    check("a trim is a trim", run("xvda", rw="randtrim", bs="64k", iodepth=4, size=4 * MIB)["trim"]["total_ios"] == 64)

    run("xvdb", **verified)
    system.exec("sys-storage", f"printf x | dd of={IMAGE} bs=1 seek={4096 * 17 + 99} conv=notrunc 2>/dev/null")
    fails(system, fio_line("xvdb", **verified, verify_only=1), "verify failed at file xvdb offset 69632")
    fails(system, fio_line("xvdc", rw="write", size=MIB), "xvdc is read-only")
    fails(system, fio_line("xvdb", **verified, numjobs=2), "another program has the disk")

    for victim in worker, controller:
        for zero_copy in 0, 1:
            killed(system, victim, zero_copy)


def worker(system):
    return system.workers("sys-storage", IMAGE)


def controller(system):
    return [pid for pid in descendants(system.domains()["sys-storage"]["pid"]) if cmdline(pid)[1:2] == ["devd"]]


def killed(system, victim, zero_copy):
    """The backend's worker dies, or its controller and with it the connection; a verified run does not notice."""
    line = fio_line("xvdb", rw="randwrite", bs="4k", iodepth=32, verify="crc32c", size=16 * MIB, rate="4m",
                    zero_copy=zero_copy)
    running = system.start("guest", line + " >/tmp/said 2>&1")
    kills = 0
    while kills < 3 and running.poll() is None:
        time.sleep(1)
        pids = victim(system)  # of a worker: none yet, while the next one is not there
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        kills += len(pids)
    running.wait()
    if running.returncode != 0:
        print(system.exec("guest", "head -c 3000 /tmp/said"))
    check(f"a verified run with zero_copy={zero_copy} does not notice {kills} kills of a {victim.__name__}",
          running.returncode == 0 and kills > 0)


def main():
    unwind_on_signals()
    what = sys.argv[1]
    wanted = {"nbdkit": ("nbdkit", "nbdinfo", "nbdcopy", "qemu-img", "qemu-io"), "fio": ("fio",)}[what]
    for program in wanted:
        if not shutil.which(program):
            skip(f"{program} is not installed")
    if not os.path.exists({"nbdkit": PLUGIN, "fio": ENGINE}[what]):
        skip({"nbdkit": "built without the package nbdkit-plugin-dev",
              "fio": "built without fio's source (./dev bench block fetches it)"}[what])
    if what == "nbdkit" and b"__asan_init" in open(PLUGIN, "rb").read():
        skip("the plugin was built with a sanitizer, whose run-time nbdkit does not load first")
    with System(os.environ["CAISSON"]) as system:
        start(system)
        for disk in "xvda", "xvdb", "xvdc":  # once, so that workers are there
            first = {"nbdkit": served(disk, "true"), "fio": fio_line(disk, rw="read", size=4096)}[what]
            system.exec("guest", first)
        before = settle(system.census)
        {"nbdkit": nbdkit, "fio": fio}[what](system)
        after = settle(system.census)
        check(f"nothing is left over: {before}, {after}", after == before)


main()
