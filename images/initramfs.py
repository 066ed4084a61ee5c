"""The file system of a service VM: a cpio archive that is made in memory, so that nobody has to be root, and nothing of
this machine (times, users, the order of a folder) is in it: the same inputs give the same bytes."""

import gzip
import stat
from dataclasses import dataclass

FOLDERS = ["dev", "modules", "proc", "run", "sbin", "sys", "tmp"]
CONSOLE = (5, 1)  # the kernel opens it for PID 1 before there is a devtmpfs
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    name: str
    mode: int  # type and permissions, as stat() has them
    data: bytes = b""
    device: tuple = (0, 0)


def entries(program, variant, prepared):
    """`program` is the bytes of PID 1. Nothing else can be executed."""
    made = [Entry(name, stat.S_IFDIR | 0o755) for name in FOLDERS]
    made.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=CONSOLE))
    made.append(Entry("init", stat.S_IFREG | 0o755, program))
    made += [Entry(f"sbin/{name}", stat.S_IFLNK | 0o777, b"/init") for name in ("poweroff", "reboot")]
    made.append(Entry("recipe", stat.S_IFREG | 0o444, "".join(f"{line}\n" for line in prepared.lines).encode()))
    made.append(Entry("variant", stat.S_IFREG | 0o444, variant.encode()))
    made += [Entry(f"modules/{name}.ko", stat.S_IFREG | 0o444, file.read_bytes()) for name, file in prepared.modules.items()]
    return sorted(made, key=lambda entry: entry.name)


def archive(all_entries):
    """The newc format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = bytearray()
    for inode, entry in enumerate([*all_entries, Entry(TRAILER, 0)]):
        name = entry.name.encode() + b"\0"
        fields = [inode, entry.mode, 0, 0, 2 if stat.S_ISDIR(entry.mode) else 1, 0, len(entry.data), 0, 0, *entry.device,
                  len(name), 0]
        out += b"070701" + b"".join(b"%08X" % number for number in fields) + name
        out += b"\0" * (-len(out) % 4) + entry.data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def packed(all_entries):
    # gzip: under emulation it is unpacked ten times as fast as xz.
    return gzip.compress(archive(all_entries), compresslevel=9, mtime=0)
