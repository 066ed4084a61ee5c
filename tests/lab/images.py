"""The file systems that Dom0 and the domains of the lab run from: an initramfs each, made from the packages and a build."""

import re
import shutil
import subprocess
from pathlib import Path

from packages import Skip, libraries_of, program, run  # which also finds what lies in images/
import service_vm

LAB = Path(__file__).resolve().parent
FOLDERS = ["bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "tmp", "run", "root", "share", "etc/xen/auto",
           "var/lib/xen/dump", "var/log/xen"]
XEN_MODULES = ["xenfs", "xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc"]
DOM0_MODULES = ["virtio_pci", "9pnet_virtio", "9p", "xen-netback", "xen-blkback", "xen-pciback", "bridge", "loop"]
DOMAIN_MODULES = ["xen-netfront", "xen-blkfront", "xen-netback", "xen-blkback", "bridge", "tun", "brd", "loop", "ext4",
                  "crc32c_generic", "fuse", "nbd"]
XENSTORE = [f"xenstore-{word}" for word in ("read", "write", "ls", "list", "exists", "rm", "chmod", "watch")]


class Image:
    """One root under construction; every file comes with what it needs."""

    def __init__(self, packages, root):
        self.packages, self.root = packages, root
        shutil.rmtree(root, ignore_errors=True)
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True)
        (root / "var/run").symlink_to("../run")
        (root / "var/lock").symlink_to("../run/lock")
        busybox = packages.root / "bin/busybox"
        self.program(busybox, "bin/busybox")
        for name in run(busybox, "--list").split():
            if name not in ("busybox", "ip", "stat", "dd"):
                (root / "bin" / name).symlink_to("busybox")
        for name in XENSTORE + ["ip", "stat", "dd"]:
            self.program(program(name), f"usr/bin/{name}")
        self.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.text("etc/group", "root:x:0:\n")
        shutil.copytree(LAB / "inside", root / "lab")
        shutil.copytree(LAB.parents[1] / "images/layouts", root / "lab/layouts")
        for folder in ("scenarios", "truth"):
            shutil.copytree(LAB / folder, root / "lab" / folder)

    def text(self, name, content):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(content)

    def program(self, source, name, strip=False):
        """An executable, or a library, and the libraries that ldd names for it."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        if strip and shutil.which("strip"):
            run("strip", target)
        for library in libraries_of(source):
            if not (self.root / library[1:]).exists():
                (self.root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, self.root / library[1:])

    def modules(self, names):
        base, kernel = self.packages.root, self.packages.kernel
        (self.root / "lib/modules" / kernel).mkdir(parents=True)
        for name in names:
            needed = run(program("modprobe"), "-d", base, "-S", kernel, "--ignore-install", "--show-depends", name)
            for file in re.findall(r"insmod (\S+)", needed):
                target = self.root / Path(file).relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            shutil.copy(base / "lib/modules" / kernel / name, self.root / "lib/modules" / kernel / name)
        run(program("depmod"), "-b", self.root, kernel)

    def pack(self, file, init):
        (self.root / "init").symlink_to(f"lab/{init}")
        with open(file, "wb") as packed:
            find = subprocess.Popen(["find", "."], cwd=self.root, stdout=subprocess.PIPE)
            cpio = subprocess.Popen([program("cpio"), "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=self.root,
                                    stdin=find.stdout, stdout=subprocess.PIPE)
            subprocess.run(["gzip", "-1"], stdin=cpio.stdout, stdout=packed, check=True)
            if cpio.wait() != 0:
                raise Skip("cpio failed")


def dom0(packages, work, programs=()):
    image = Image(packages, work / "dom0")
    for source in programs:
        image.program(source, f"usr/bin/{Path(source).name}", strip=True)
    for name in ("xl", "libxl-save-helper", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0"):
        image.program(packages.xen_programs / name, f"usr/lib/xen-4.17/bin/{name}")
    # xl's hotplug scripts are bash; pthread_cancel in xl loads libgcc_s at run time.
    for name in ("bash", "losetup", "flock", "bridge"):
        image.program(program(name), f"usr/bin/{name}")
    (image.root / "bin/bash").symlink_to("/usr/bin/bash")
    libgcc = "lib/x86_64-linux-gnu/libgcc_s.so.1"
    image.program(f"/{libgcc}", libgcc)
    shutil.copytree(packages.root / "etc/xen/scripts", image.root / "etc/xen/scripts", symlinks=True)
    image.text("etc/xen/xl.conf", 'autoballoon="off"\nclaim_mode=0\n')
    image.modules(XEN_MODULES + DOM0_MODULES)
    image.pack(work / "dom0.img", "dom0.sh")
    return work / "dom0.img"


OPTIONAL = ["iperf3", "netperf", "netserver", "ethtool", "mke2fs", "fallocate"]


def domain(packages, work, programs, optional=OPTIONAL, name="domain"):
    image = Image(packages, work / name)
    for source in programs:
        image.program(source, f"usr/bin/{Path(source).name}", strip=True)
    for one in optional:
        if shutil.which(one):
            image.program(program(one), f"usr/bin/{one}")
    image.modules(XEN_MODULES + DOMAIN_MODULES)
    image.pack(work / f"{name}.img", "domain.sh")
    return work / f"{name}.img"


def disk(work, domain_image):
    """A disk from which a domain runs what domain() has packed: inside/domain.sh, root=."""
    tree = domain_image.with_suffix("")
    (tree / "on-disk").touch()
    run(program("mke2fs"), "-q", "-t", "ext4", "-d", tree, work / "disk", "128M")
    return work / "disk"


def service_vms(kernel, work, vm_program):
    """The images of images/, as they are, and those of recipes that only the lab has."""
    made = []
    for variant, recipe in {**service_vm.variants(), **{file.stem: file for file in LAB.glob("recipes/*.recipe")}}.items():
        made.append(work / f"{variant}.img")
        made[-1].write_bytes(service_vm.build(variant, recipe, vm_program, kernel))
    return made
