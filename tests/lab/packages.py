"""What the lab takes from Debian: fetched once, extracted into the cache, never installed.

Installing the hypervisor would change the boot loader of the machine; the kernel is the guests' and Dom0's, not ours.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "images"))
from debian import Kernel, Skip, extract, kernel_package, program, run, uncompressed  # noqa: E402, F401 (some for the rest of the lab)

# Extracted; what these need of libraries comes with libxen-dev, which the build needs anyway.
PACKAGES = ["xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xen-utils-common", "busybox-static"]
PROGRAMS = ["qemu-system-x86_64", "cpio", "modprobe", "depmod", "ip", "xenstore-read", "bash", "strip"]


def libraries_of(source):
    """What ldd names for a program, or for a library; a static one has none."""
    told = subprocess.run(["ldd", str(source)], capture_output=True, text=True).stdout
    if "not found" in told:
        raise Skip(f"{Path(source).name} needs a library that is not here:{told}")
    return re.findall(r"(/\S+\.so\S*)", told)


class Packages:
    """The cache's folder: `root` has the extracted files, `kernel` is the version of the modules in it."""

    def __init__(self, cache):
        self.cache, self.root = Path(cache).resolve(), Path(cache).resolve() / "root"
        if os.uname().machine != "x86_64":
            raise Skip("the lab's Xen, kernel and programs are those of x86-64")
        for name in PROGRAMS:
            program(name)
        self._fetch()
        self.bootable = Kernel(self.root)
        self.kernel = self.bootable.version
        self._unpack(self.bootable.image)

    xen = property(lambda self: self.cache / "xen")
    vmlinux = property(lambda self: self.cache / "vmlinux")
    xen_programs = property(lambda self: self.root / "usr/lib/xen-4.17/bin")

    def add(self, name):
        """One more package, which not every run needs; the Skip of one that cannot be had is the caller's to tell."""
        listed = self.cache / "packages.json"
        names = json.loads(listed.read_text())
        if name not in names:
            extract([name], self.root)
            listed.write_text(json.dumps(names + [name]))

    def _fetch(self):
        listed = self.cache / "packages.json"
        if listed.exists():
            return
        names = PACKAGES + [kernel_package()]
        shutil.rmtree(self.root, ignore_errors=True)
        extract(names, self.root)
        listed.write_text(json.dumps(names))

    def _unpack(self, kernel):
        if not self.xen.exists():
            packed = next(self.root.glob("boot/xen-4.17-amd64.gz"))
            with open(self.xen, "wb") as plain:
                subprocess.run(["gzip", "-dc", packed], stdout=plain, check=True)
        if not self.vmlinux.exists():
            self.vmlinux.write_bytes(uncompressed(kernel.read_bytes()))
