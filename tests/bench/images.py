"""A service VM's image beside a driver domain of Debian's stock tools (stock.py): what there is of it, when it serves, what
memory it needs, and what whoever takes it over could use.

One boot of the lab, as `bench lab`: under emulation, by a clock that counts instructions, so that only ratios say anything.
Both have the same memory= and devices, and the same kernel, Debian's; --own-kernel also shows what ours is with the kernel of our
own, beside the stock domain with Debian's. "It serves" is the same for both: a vif and a disk of a guest, which are in
xenstore as soon as `xl create` has made the domain, are in the state in which libxl goes on with the guest."""
import itertools
import os
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import images  # noqa: E402, the lab's
import service_vm  # noqa: E402
import stock  # noqa: E402
from bench import Bench, figures_in, run  # noqa: E402
from catalogue import busy, limit_of  # noqa: E402
from kernel import own_kernel  # noqa: E402
from machine import Machine  # noqa: E402
from packages import Packages, Skip, program  # noqa: E402

bench = Bench("images", __doc__, own_kernel="also with the kernel of our own (images/kernel.py), which is built first")
ROUNDS, STEP = (2, 16) if bench.options.quick else (5, 4)  # trials; MiB between two sizes of memory that are tried
SCENARIO = "measure-image"
PEERS = {"stock": "stock", "busybox": "stock+busybox"}  # in the scenario, in the table
OURS = {"ours": "", "own": ", own kernel"}
MOST_MIB, MOST_MIB_IN_ALL = 4, 10  # without a kernel; with our own
WORK = Path(os.environ.get("CAISSON_LAB", Path(__file__).resolve().parents[2] / "build/lab"))
FOLDER = WORK / "bench-images"
CALLS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
MIB = 2**20


def recipes():
    """Name to our recipe and the modules that the stock domain needs for the same."""
    known, hardware = service_vm.variants(), ["xen-pcifront"]
    return {"net and block": (stock.HERE / "driver_domain.recipe", stock.MODULES),
            "network": (known["network"], ["xen-privcmd", "xen-netback", "bridge", *hardware, "e1000e", "igb", "r8169"]),
            "storage": (known["storage"], ["xen-privcmd", "xen-blkback", "loop", *hardware, "nvme", "ahci", "sd_mod"])}


def sizes(packages, vm_program, own):
    """The rows of what lies on disk; the images that the machine boots, as files. `own`: the kernel of our own, or None."""
    kernel = packages.bootable.image.stat().st_size
    booted = []
    for name, (recipe, modules) in recipes().items():
        packed = {"ours": service_vm.build(name, recipe, vm_program, packages.bootable)}
        if own:
            packed["own"] = service_vm.build(name, recipe, vm_program, own)
            small = (len(packed["own"]) + own.image.stat().st_size) / MIB
        for peer, shown in PEERS.items():
            packed[peer] = stock.build(packages, FOLDER / f"{peer}-{recipe.stem}", peer == "busybox", modules)
            for case, more, aim in ((f"image_size {name}", 0, 5.0), (f"with its kernel: {name}", kernel, None)):
                pair = ((len(packed["ours"]) + more) / MIB, (len(packed[peer]) + more) / MIB)
                bench.row(case, shown, "MiB", [pair], aim=aim, less_is_better=True)
            if own:
                bench.row(f"with its kernel: {name}, own kernel", shown, "MiB", [(small, pair[1])], less_is_better=True)
        if len(packed["ours"]) > MOST_MIB * MIB:
            bench.note(f"image_size {name}: {len(packed['ours']) / MIB:.2f} MiB are more than {MOST_MIB} (short)")
        if own and small > MOST_MIB_IN_ALL:
            bench.note(f"{name} with the kernel of our own: {small:.2f} MiB are more than {MOST_MIB_IN_ALL} (short)")
        if not booted:
            for who, image in packed.items():
                booted.append(FOLDER / f"{who}.img")
                booted[-1].write_bytes(image)
    return booted


def boot(packages, booted):
    """The figures by case and contender, in the order in which they were measured; and what failed."""
    dom0 = images.dom0(packages, FOLDER)
    domain = images.domain(packages, FOLDER, [], [*images.OPTIONAL, "fio"])
    folder = WORK / "bench"
    machine = Machine(folder, packages, dom0, domain, {SCENARIO: limit_of(SCENARIO)}, 4 * busy(), booted, counted=True)
    (machine.share / "measure").write_text(f"{ROUNDS} {STEP}\n")
    one = machine.run(lambda one: print(f"lab: {one.verdict} {one.scenario} ({one.seconds:.0f} s) {one.why}", flush=True))[SCENARIO]
    figures = figures_in(folder / f"share/out/{SCENARIO}/dom0.log")
    if one.verdict != "PASS":
        return figures, [f"bench images: the boot did not end well: its logs are in {folder}/share/out/{SCENARIO}/"]
    shutil.rmtree(folder)
    return figures, []


def booted_rows(figures, own):
    for case, which, shown, unit, factor, aim in (
            ("ready_time", 0, "ready_time", "s", 1, 3.0), ("ready_time", 1, "of it in xl create", "s", 1, None),
            ("memory", 0, "memory in use of 128 MiB", "MiB", 1 / 1024, 3.0),
            ("memory_least", 0, "smallest memory= that passes", "MiB", 1, None)):
        found = figures.get(case, {})
        peers = PEERS if case != "memory_least" else {"stock": "stock"}
        for (who, how), (peer, name) in itertools.product(OURS.items() if own else [("ours", "")], peers.items()):
            pairs = [(ours[which] * factor, theirs[which] * factor)
                     for ours, theirs in zip(found.get(who, []), found.get(peer, []))]
            if pairs:
                bench.row(shown + how, name, unit, pairs, aim=aim, less_is_better=True)
            else:
                bench.note(f"{shown}{how} beside {name}: skipped: no figure of both")


def system_calls():
    """What the policy of sealed workers lets through, beside the kernel's whole table."""
    try:
        table = len(re.findall(r"^#define __NR_", CALLS.read_text(), re.MULTILINE))
    except OSError:
        bench.note(f"system calls: skipped: there is no {CALLS}")
        return
    for name, device_class in (("net", "vif"), ("block", "vbd")):
        told = set(run([bench.program("sealed_calls"), device_class]).splitlines())
        ring = {line for line in told if line.startswith("ring ")}
        some = {line for line in told if line.endswith(" if")}
        bench.row(f"system calls of a sealed {name} worker", "no filter", "calls", [(len(told - ring), table)], less_is_better=True)
        bench.note(f"of a {name} worker's {len(told - ring)} system calls {len(some)} with some arguments alone; "
                   f"{len(ring)} operations of its io_uring")


def gadgets(file):
    found = re.search(r"Unique gadgets found: (\d+)", run([program("ROPgadget"), "--binary", str(file)]))
    return int(found[1])


def gadget_rows(vm_program):
    copy = FOLDER / "init"
    copy.write_bytes(service_vm.stripped(vm_program))
    copy.chmod(0o755)
    try:
        ours = gadgets(copy)
        of_name = {}
        for peer, name in PEERS.items():
            files = stock.executables(FOLDER / f"{peer}-driver_domain")
            for file in files:
                if file.name not in of_name:
                    of_name[file.name] = gadgets(file)
            theirs = sum(of_name[file.name] for file in files)
            bench.row("ROP gadgets", name, "gadgets", [(ours, theirs)], less_is_better=True)
            bench.note(f"ROP gadgets: ours are those of the one program; of {name} those of {len(files)} programs and libraries, each once")
    except Skip as why:
        bench.note(f"ROP gadgets: skipped: {why}")


def main():
    vm_program = Path(os.environ["CAISSON"]).with_name("caisson-vm")
    try:
        packages = Packages(WORK / "cache")
        if not shutil.which("fio"):
            raise Skip("fio is not installed")
        FOLDER.mkdir(parents=True, exist_ok=True)
        own = own_kernel(packages.cache) if bench.options.own_kernel else None
        booted = sizes(packages, vm_program, own)
        if own:
            booted.append(shutil.copy(own.image, FOLDER / "own-kernel"))
        figures, failed = boot(packages, booted)
    except Skip as why:
        print(f"bench images: skipped: {why}")
        return
    booted_rows(figures, own)
    system_calls()
    gadget_rows(vm_program)
    bench.note("stock: xl devd, Debian's hotplug scripts, what they call, and no file else: no systemd, udev, syslog, perl or python;")
    bench.note("stock+busybox: one busybox in the place of the small programs. All images are packed by the same program.")
    bench.note("Times are those of an emulator, by a clock that counts instructions; only ratios say anything.")
    bench.finish(failed)


main()
