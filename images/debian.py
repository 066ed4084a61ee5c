"""What is taken from Debian: packages that are downloaded once and extracted into a folder, never installed.

Installing a kernel or a hypervisor would change the boot loader of the machine; these are for other machines.
"""

import lzma
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

PACKAGE_OF = {"qemu-system-x86_64": "qemu-system-x86", "modprobe": "kmod", "depmod": "kmod", "ip": "iproute2",
              "xenstore-read": "xenstore-utils", "strip": "binutils", "ld": "binutils", "as": "binutils", "xz": "xz-utils"}


class Skip(Exception):
    """It cannot be done here, and this is why."""


def program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise Skip(f"there is no {name} here (Debian's package {PACKAGE_OF.get(name, name)})")
    return found


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Skip(f"'{' '.join(map(str, command[:3]))}' failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return done.stdout


def extract(names, root):
    """Downloads the packages, by their exact names, and extracts them."""
    program("apt-get")
    debs = root.parent / "debs"
    for folder in (debs, root):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not list(debs.glob(f"{name}_*.deb")):
            # As whoever we are: apt's own user may not write here.
            run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name, cwd=debs)
        run("dpkg-deb", "-x", next(debs.glob(f"{name}_*.deb")), root)
    shutil.rmtree(debs)


def kernel_package():
    text = run("apt-cache", "depends", "linux-image-amd64")
    found = re.search(r"Depends: (linux-image-\S+-amd64)", text)
    if not found:
        raise Skip("apt knows no linux-image-amd64 (is this Debian, and was 'apt-get update' run?)")
    return found[1]


class Kernel:
    """The newest one in a folder of extracted packages."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        self.image = max(self.root.glob("boot/vmlinuz-*"), default=None)
        if not self.image:
            raise Skip(f"there is no kernel in {self.root}")
        self.version = self.image.name.removeprefix("vmlinuz-")
        self.modules = self.root / "lib/modules" / self.version
        if not (self.modules / "modules.dep").exists():
            run(program("depmod"), "-b", self.root, self.version)


def fetched_kernel(cache):
    """Debian's newest one, downloaded when it is not in the cache yet."""
    root = Path(cache) / "root"
    if not list(root.glob("boot/vmlinuz-*")):
        extract([kernel_package()], root)
    return Kernel(root)


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
