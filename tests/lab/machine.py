"""One boot of the lab: QEMU, Xen, Dom0, and the scenarios that Dom0 runs one after the other."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass

from packages import program

BOOT_SECONDS = 90  # until Dom0 is up, on a busy machine


@dataclass
class Result:
    scenario: str
    verdict: str  # PASS, FAIL
    seconds: float
    why: str = ""


class Machine:
    """`limits` is how long each scenario may take, by name, on an idle machine; `patience` times that is granted.

    `counted`: its clock counts instructions (4 ns each) and skips what is idle, on one processor of the host at a time. What
    runs in it sees the same times however busy the host is.

    `devices`: it has an IOMMU, an NVMe controller on which lies the file system of `root_disk`, and a NIC. Behind the NIC is
    a network of the emulator's own, 10.0.2.0/24, which leads nowhere else: 10.0.2.2 answers pings, port 7000 of 10.0.2.100
    says what is in share/blob, that of 10.0.2.101 answers with the MD5 sum of what it is told.

    `enforcing`: another Xen, with XSM/FLASK, and the policy that it enforces.

    Its folder has share/ (Dom0's /share) and serial.log.
    """

    def __init__(self, folder, packages, dom0, domain, limits, patience, service_vms=(), memory_mib=2304, counted=False,
                 root_disk=None, enforcing=None):
        self.memory_mib, self.counted, self.root_disk, self.enforcing = memory_mib, counted, root_disk, enforcing
        self.folder, self.packages, self.dom0, self.limits = folder, packages, dom0, limits
        self.patience = patience
        self.share = folder / "share"
        shutil.rmtree(folder, ignore_errors=True)
        (self.share / "out").mkdir(parents=True)
        for file in (packages.vmlinux, domain, *service_vms):
            shutil.copy(file, self.share)
        (self.share / "patience").write_text(f"{patience}\n")
        (self.share / "scenarios").write_text("".join(f"{name}\n" for name in limits))
        if root_disk:
            shutil.copy(root_disk, self.folder / "nvme")
            (self.share / "blob").write_bytes(os.urandom(4 << 20))

    def command(self):
        # The processor is one on which Xen runs PVH domains, too; emulated newer ones crash a PV Dom0.
        xen, policy = self.enforcing or (self.packages.xen, None)
        clock = ["tcg,thread=single", "-icount", "shift=2,sleep=off"] if self.counted else ["tcg,thread=multi"]
        return [program("qemu-system-x86_64"), "-accel", *clock, "-cpu", "qemu64,+svm,+npt",
                "-m", str(self.memory_mib), "-smp", "2", "-nographic",
                "-no-reboot", *self._devices(), "-kernel", xen,
                "-append", "dom0_mem=640M,max:640M com1=115200,8n1 console=com1 conring_size=512k gnttab_max_frames=256" +
                (" flask=enforcing" if policy else ""),
                "-initrd", f"{self.packages.vmlinux} console=hvc0 quiet,{self.dom0}" + (f",{policy}" if policy else ""),
                "-fsdev", f"local,id=share,path={self.share},security_model=none",
                "-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]

    def _devices(self):
        if not self.root_disk:
            return ["-nic", "none"]
        say, sum_of = (f"guestfwd=tcp:10.0.2.{host}:7000-cmd:{command}"
                       for host, command in ((100, f"{program('cat')} {self.share / 'blob'}"), (101, program("md5sum"))))
        return ["-machine", "q35", "-device", "intel-iommu,intremap=on",
                "-drive", f"file={self.folder / 'nvme'},format=raw,if=none,id=nvme", "-device", "nvme,drive=nvme,serial=lab",
                "-netdev", f"user,id=nic,restrict=on,{say},{sum_of}", "-device", "e1000e,netdev=nic"]

    def interactive(self):
        (self.share / "interactive").touch()
        subprocess.run(self.command())

    def run(self, tell):
        """The results so far; scenarios that the boot did not come to are missing. `tell` hears each as it comes."""
        results, started = {}, None
        deadline = time.monotonic() + BOOT_SECONDS * self.patience
        with open(self.folder / "serial.log", "wb") as serial:
            qemu = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=serial, stderr=subprocess.STDOUT)
            try:
                while True:
                    ended = qemu.poll() is not None
                    for line in self._lines():
                        kind, _, rest = line.partition(" ")
                        if kind == "START" and rest != started and rest not in results:
                            started = rest
                            deadline = time.monotonic() + (self.limits[rest] + 60) * self.patience
                        elif kind in ("PASS", "FAIL") and (name := rest.split()[0]) not in results:
                            words = rest.split(maxsplit=2)
                            results[name] = Result(name, kind, float(words[1]), words[2] if len(words) > 2 else "")
                            started, deadline = None, time.monotonic() + 60 * self.patience
                            tell(results[name])
                    if ended or time.monotonic() > deadline:
                        break
                    time.sleep(0.3)
            finally:
                qemu.kill()
                qemu.wait()
        # Xen that crashed ends QEMU as a shutdown does: only a marker counts.
        if len(results) < len(self.limits):
            name = started or next(one for one in self.limits if one not in results)
            how = "Xen or Dom0 ended" if ended else "no sign of life from Dom0"
            results[name] = Result(name, "FAIL", 0.0, f"{how}: see {self.folder.name}/serial.log")
            tell(results[name])
        return results

    def _lines(self):
        try:
            text = (self.share / "out/results").read_text()
        except OSError:
            return []
        return text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
