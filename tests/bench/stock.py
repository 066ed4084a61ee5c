"""A driver domain of Debian's stock tools, as small as it honestly gets: `xl devd`, the hotplug scripts, Linux's backends.

Of each package only the files that this domain needs: the programs that its init or a script calls, the libraries that
ldd names for them, the scripts of bridges and disks, and these modules. No systemd, udev, syslog, perl or python, which the
packages' dependencies would add; no documentation, no locales. Packed by what packs ours: the same archive, the same gzip.

`busybox`: one busybox in the place of all small programs with which the scripts can do: smaller than what anybody installs.
"""

import shutil
import stat
from pathlib import Path

from packages import libraries_of, program, run  # which also finds what lies in images/
import initramfs
from recipe import Modules, Prepared, add_module

HERE = Path(__file__).resolve().parent
SCRIPTS = ["block", "block-common.sh", "hotplugpath.sh", "locking.sh", "logging.sh", "vif-bridge", "vif-common.sh",
           "xen-hotplug-common.sh", "xen-network-common.sh", "xen-script-common.sh"]
ALWAYS = ["bash", "ip", "xenstore-read", "xenstore-write", "xenstore-list", "stat", "flock"]  # busybox's stat and flock will not do
SMALL = ["mount", "modprobe", "losetup", "mkdir", "ln", "rm", "cat", "cut", "dirname", "expr", "readlink", "grep", "awk", "sed",
         "which", "logger"]
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run",
         "var/lock": "../run/lock", "usr/bin/sh": "bash"}
FOLDERS = ["dev", "proc", "run", "sys", "tmp", "var/log/xen", "var/lib/xen"]
MODULES = ["xen-privcmd", "xen-netback", "xen-blkback", "bridge", "loop", "brd"]
LIBGCC = "/lib/x86_64-linux-gnu/libgcc_s.so.1"  # pthread_cancel in xl loads it at run time


def build(packages, work, busybox=False, modules=MODULES):
    """The initramfs, as bytes; its tree stays in the folder `work`."""
    shutil.rmtree(work, ignore_errors=True)
    for folder in FOLDERS:
        (work / folder).mkdir(parents=True)
    add(work, packages.xen_programs / "xl", "usr/lib/xen-4.17/bin/xl")
    for name in ALWAYS + ([] if busybox else SMALL):
        add(work, Path(program(name)).resolve(), f"usr/bin/{name}")
    if busybox:
        add(work, packages.root / "bin/busybox", "usr/bin/busybox")
        for name in SMALL:
            (work / "usr/bin" / name).symlink_to("busybox")
    add(work, LIBGCC, f"usr{LIBGCC}")
    for name, target in LINKS.items():
        (work / name).symlink_to(target)
    (work / "etc/xen/scripts").mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(packages.root / "etc/xen/scripts" / name, work / "etc/xen/scripts")
    shutil.copy(HERE / "driver_domain.init", work / "init")
    add_modules(work, packages.bootable, modules)
    return initramfs.packed(sorted(entries(work), key=lambda entry: entry.name))


def add(work, source, name):
    """A program, and the libraries that ldd names for it."""
    (work / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, work / name)
    for library in libraries_of(source):
        name = "usr" + library.removeprefix("/usr")
        if not (work / name).exists():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, work / name)


def add_modules(work, kernel, names):
    wanted, known = Prepared(), Modules(kernel)
    for name in names:
        if name not in wanted.modules:
            add_module(wanted, known, name, [])
    for file in wanted.modules.values():
        target = work / "usr/lib/modules" / kernel.version / file.relative_to(kernel.modules)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.copy(kernel.modules / "modules.builtin", work / "usr/lib/modules" / kernel.version)
    run(program("depmod"), "-b", work, kernel.version)


def entries(work):
    yield initramfs.Entry("dev/console", stat.S_IFCHR | 0o600, device=initramfs.CONSOLE)
    for path in work.rglob("*"):
        name, mode = str(path.relative_to(work)), path.lstat().st_mode
        if path.is_symlink():
            yield initramfs.Entry(name, stat.S_IFLNK | 0o777, str(path.readlink()).encode())
        else:
            yield initramfs.Entry(name, mode, b"" if path.is_dir() else path.read_bytes())


def executables(work):
    """Programs and libraries, each once."""
    return [path for path in sorted(work.rglob("*")) if path.is_file() and not path.is_symlink() and path.suffix != ".ko"
            and path.read_bytes()[:4] == b"\x7fELF"]
