"""What the lab takes from Debian: fetched once, extracted into the cache, never installed.

Installing the hypervisor would change the boot loader of the machine; the kernel is the guests' and Dom0's, not ours.
"""

import json
import lzma
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

# Extracted; what these need of libraries comes with libxen-dev, which the build needs anyway.
PACKAGES = ["xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xen-utils-common", "busybox-static"]
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio", "modprobe": "kmod", "depmod": "kmod",
            "ip": "iproute2", "xenstore-read": "xenstore-utils", "bash": "bash"}


class Skip(Exception):
    """The lab cannot run here, and this is why."""


def program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise Skip(f"there is no {name} here (Debian's package {PROGRAMS.get(name, name)})")
    return found


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Skip(f"'{' '.join(map(str, command[:3]))}' failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return done.stdout


class Packages:
    """The cache's folder: `root` has the extracted files, `kernel` is the version of the modules in it."""

    def __init__(self, cache):
        self.cache, self.root = Path(cache).resolve(), Path(cache).resolve() / "root"
        if os.uname().machine != "x86_64":
            raise Skip("the lab's Xen, kernel and programs are those of x86-64")
        for name in PROGRAMS:
            program(name)
        self._fetch()
        kernels = sorted(self.root.glob("boot/vmlinuz-*"))
        self.kernel = kernels[-1].name.removeprefix("vmlinuz-")
        self._unpack(kernels[-1])

    xen = property(lambda self: self.cache / "xen")
    vmlinux = property(lambda self: self.cache / "vmlinux")
    xen_programs = property(lambda self: self.root / "usr/lib/xen-4.17/bin")

    def add(self, name):
        """One more package, which not every run needs; the Skip of one that cannot be had is the caller's to tell."""
        listed = self.cache / "packages.json"
        names = json.loads(listed.read_text())
        if name not in names:
            self._extract([name])
            listed.write_text(json.dumps(names + [name]))

    def _fetch(self):
        listed = self.cache / "packages.json"
        if listed.exists():
            return
        program("apt-get")
        names = PACKAGES + [self._kernel_package()]
        shutil.rmtree(self.root, ignore_errors=True)
        self._extract(names)
        listed.write_text(json.dumps(names))

    def _extract(self, names):
        debs = self.cache / "debs"
        for folder in (debs, self.root):
            folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not list(debs.glob(f"{name}_*.deb")):
                # As whoever we are: apt's own user may not write here.
                run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name, cwd=debs)
            run("dpkg-deb", "-x", next(debs.glob(f"{name}_*.deb")), self.root)
        shutil.rmtree(debs)

    @staticmethod
    def _kernel_package():
        text = run("apt-cache", "depends", "linux-image-amd64")
        found = re.search(r"Depends: (linux-image-\S+-amd64)", text)
        if not found:
            raise Skip("apt knows no linux-image-amd64 (is this Debian, and was 'apt-get update' run?)")
        return found[1]

    def _unpack(self, kernel):
        if not (self.root / "lib/modules" / self.kernel / "modules.dep.bin").exists():
            run(program("depmod"), "-b", self.root, self.kernel)
        if not self.xen.exists():
            packed = next(self.root.glob("boot/xen-4.17-amd64.gz"))
            with open(self.xen, "wb") as plain:
                subprocess.run(["gzip", "-dc", packed], stdout=plain, check=True)
        if not self.vmlinux.exists():
            self.vmlinux.write_bytes(uncompressed(kernel.read_bytes()))


def uncompressed(image):
    """The ELF kernel in a bzImage, without the zeros at its end: under emulation every domain starts twice as fast.

    Documentation/x86/boot.rst has the fields: setup_sects at 0x1f1, payload_offset and payload_length at 0x248.
    """
    offset, length = struct.unpack_from("<II", image, 0x248)
    offset += (image[0x1F1] + 1) * 512
    elf = bytearray(lzma.LZMADecompressor().decompress(image[offset:offset + length]))
    headers, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    loads = [at for at in range(headers, headers + count * size, size) if struct.unpack_from("<I", elf, at)[0] == 1]
    last = max(loads, key=lambda at: struct.unpack_from("<Q", elf, at + 8)[0])
    start, = struct.unpack_from("<Q", elf, last + 8)
    in_file, = struct.unpack_from("<Q", elf, last + 32)
    end = len(elf[:start + in_file].rstrip(b"\0"))
    end = min(start + in_file, (end + 4095) & ~4095)
    struct.pack_into("<Q", elf, last + 32, end - start)
    struct.pack_into("<Q", elf, 40, 0)  # no section headers: they were behind it
    struct.pack_into("<HH", elf, 60, 0, 0)
    return bytes(elf[:end])
