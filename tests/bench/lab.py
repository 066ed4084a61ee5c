"""Our backends beside Linux's and QEMU's on real Xen: one boot of the lab, unprivileged driver domains, one guest with
Debian's own xen-blkfront and xen-netfront that nobody changes. It takes turns between its devices.

All of it runs under emulation (QEMU without KVM), and the machine's clock counts instructions: a figure says nothing about
a machine, a ratio only how many instructions all sides together need beside how many. So it does not matter what else the
host does; that a guest and its backend could work at the same time does not count either. Disks lie in memory (brd) in the
driver domain of each backend; each peer's domain has what ours has."""
import os
import shutil
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import images  # noqa: E402
from bench import Bench, figures_in  # noqa: E402
from catalogue import busy, limit_of  # noqa: E402
from machine import Machine  # noqa: E402
from packages import Packages, Skip  # noqa: E402

bench = Bench("lab", __doc__)
ROUNDS, SECONDS = (2, 1) if bench.options.quick else (5, 2)
LIMITS = {name: limit_of(name) for name in ("measure-block", "measure-net")}
QEMU = "usr/libexec/xen-qemu-system-i386"
WORK = Path(os.environ.get("CAISSON_LAB", Path(__file__).resolve().parents[2] / "build/lab"))


def domain_image(packages):
    programs, optional = [os.environ["CAISSON"]], ["fio", "netperf", "netserver", "iperf3"]
    try:
        packages.add("qemu-system-xen")
        programs.append(packages.root / QEMU)
        return images.domain(packages, WORK / "bench-images", programs, optional)
    except Skip as why:
        bench.note(f"blk_vs_qdisk: skipped: {why}")
        return images.domain(packages, WORK / "bench-images", programs[:1], optional)


def boot():
    """The figures by scenario, case and contender, in the order in which they were measured; and what failed."""
    packages = Packages(WORK / "cache")
    if not shutil.which("fio"):
        raise Skip("fio is not installed")
    dom0 = images.dom0(packages, WORK / "bench-images")
    folder = WORK / "bench"
    machine = Machine(folder, packages, dom0, domain_image(packages), LIMITS, 4 * busy(), memory_mib=3072, counted=True)
    (machine.share / "measure").write_text(f"{ROUNDS} {SECONDS}\n")
    results = machine.run(lambda one: print(f"lab: {one.verdict} {one.scenario} ({one.seconds:.0f} s) {one.why}", flush=True))
    figures, failed = {}, []
    for name in LIMITS:
        if name not in results or results[name].verdict != "PASS":
            failed.append(f"bench lab: {name} did not end: its logs are in {folder}/share/out/{name}/")
            continue
        found = figures_in(folder / f"share/out/{name}/guest-guest.log")
        figures |= {(name, case): by_contender for case, by_contender in found.items()}
    if not failed:
        shutil.rmtree(folder)
    return figures, failed


def rows(figures, scenario, name, peer, cases, aim):
    """`cases` is what it is called: the case in the figures, which of its numbers, the unit."""
    all_ratios = []
    for shown, (case, which, unit) in cases.items():
        found = figures.get((scenario, case), {})
        if not found.get(peer):
            bench.note(f"{name} {shown}: skipped: no figure of {peer}")
            continue
        pairs = [(ours[which], theirs[which]) for ours, theirs in zip(found["ours"], found[peer])]
        bench.row(f"{name} {shown}", peer, unit, pairs, aim=aim)
        all_ratios.append(bench.rows[-1]["ratio"])
    if all_ratios:
        bench.note(f"{name}: {statistics.geometric_mean(all_ratios):.2f} (geometric mean of the {len(all_ratios)} cases above)")


def main():
    try:
        figures, failed = boot()
    except Skip as why:
        print(f"bench lab: skipped: {why}")
        return
    block = {"randread 4k": ("randread", 1, "requests/s"), "randwrite 4k": ("randwrite", 1, "requests/s"),
             "read 128k": ("read", 0, "KiB/s"), "write 128k": ("write", 0, "KiB/s")}
    net = {"TCP_STREAM from the guest": ("TCP_STREAM", 0, "Mbit/s"), "TCP_STREAM to the guest": ("TCP_MAERTS", 0, "Mbit/s"),
           "TCP_RR": ("TCP_RR", 0, "transactions/s")}
    rows(figures, "measure-block", "blk_vs_blkback", "blkback", block, 1.0)
    rows(figures, "measure-block", "blk_vs_qdisk", "qdisk", block, 2.0)
    rows(figures, "measure-net", "net_vs_netback", "netback", net, 1.0)
    if not shutil.which("netperf"):
        bench.note("netperf is not installed (Debian non-free, --nonfree): iperf3 was used, which has no TCP_RR")
    bench.note("Ratios under emulation: QEMU without KVM runs Xen and every domain here, by a clock that counts instructions.")
    bench.finish(failed)


main()
