"""A kernel of our own for service VMs: Debian's linux-source with what kernel.config asks for. It is built when it is asked for,
and kept for as long as nothing of what it is made from is another: the source, the options, the tools, and this file."""

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from debian import Kernel, extract, program, run
from recipe import Wrong

PACKAGE = "linux-source-6.1"
OPTIONS = Path(__file__).resolve().parent / "kernel.config"
TOOLS = ["gcc", "ld", "as", "make", "flex", "bison", "bc", "xz", "zstd", "depmod"]
MITIGATIONS = ("menuconfig CPU_MITIGATIONS", "endif")  # of the source's arch/x86/Kconfig, where they begin and end


def own_kernel(cache, options=OPTIONS):
    """From the cache, or built, which takes minutes."""
    cache = Path(cache).resolve() / "own-kernel"
    for name in TOOLS:
        program(name)
    if not list((cache / "package").glob("usr/src/*.tar.xz")):
        extract([PACKAGE], cache / "package")
    source, = (cache / "package").glob("usr/src/*.tar.xz")
    made = cache / identity(source, options, [run(tool, "--version") for tool in TOOLS])
    if not made.exists():
        print("kernel: built from source, which takes minutes", flush=True)
        tree = cache / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        run("tar", "-xf", source, "-C", tree, "--strip-components=1")
        build(tree, options, cache / "build.log")
        install(tree, cache / "made").rename(made)
        shutil.rmtree(tree)
    return Kernel(made)


def identity(source, options, tools):
    """The name of what these give."""
    words = [source.read_bytes(), options.read_bytes(), Path(__file__).read_bytes(), *(tool.encode() for tool in tools)]
    return hashlib.sha256(b"".join(hashlib.sha256(word).digest() for word in words)).hexdigest()[:16]


def environment(tree):
    """Nothing of the machine, of its user or of today gets into the kernel: its date is that of its source."""
    date = datetime.fromtimestamp(int((tree / "Makefile").stat().st_mtime), UTC)
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "LOCALVERSION": "", "SOURCE_DATE_EPOCH": f"{date.timestamp():.0f}",
            "KBUILD_BUILD_TIMESTAMP": f"{date:%a %b %d %H:%M:%S UTC %Y}", "KBUILD_BUILD_VERSION": "1",
            "KBUILD_BUILD_USER": "caisson", "KBUILD_BUILD_HOST": "caisson"}


def build(tree, options, log):
    asked = tree / "asked.config"
    asked.write_text(options.read_text() + mitigations((tree / "arch/x86/Kconfig").read_text()))
    run("make", "-C", tree, "allnoconfig", env=environment(tree) | {"KCONFIG_ALLCONFIG": str(asked)})
    check(options, (tree / ".config").read_text())
    with open(log, "wb") as words:
        done = subprocess.run(["make", "-C", str(tree), f"-j{os.cpu_count() or 1}", "bzImage", "modules"],
                              env=environment(tree), stdin=subprocess.DEVNULL, stdout=words, stderr=words)
    if done.returncode != 0:
        raise Wrong(f"{log}: the kernel does not build")


def mitigations(kconfig):
    """What the source has against the flaws of processors, and switches on by itself: a later one may have more than we know of."""
    begin, end = MITIGATIONS
    text = kconfig.partition(begin)[2].partition(f"\n{end}")[0]
    return "".join(f"CONFIG_{words.split()[0]}=y\n" for words in text.split("\nconfig ")[1:] if "\n\tdefault y" in words)


def check(options, config):
    """Every option that was asked for is in the .config: one whose dependencies are not met falls out of it without a word."""
    have = set(config.splitlines())
    for number, line in enumerate(options.read_text().splitlines(), 1):
        if line and not line.startswith("#") and line not in have:
            name = re.escape(line.partition("=")[0])
            instead = re.search(rf"^(# )?{name}[= ].*", config, re.MULTILINE)
            raise Wrong(f"{options}:{number}: asked for is {line}, " + (f"and it is '{instead[0]}'" if instead else
                        "and there is no such option, or what it depends on is not asked for"))


def install(tree, root):
    """As Debian's packages lay it out."""
    shutil.rmtree(root, ignore_errors=True)
    version = (tree / "include/config/kernel.release").read_text().strip()
    run("make", "-C", tree, "modules_install", f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1", env=environment(tree))
    for link in ("build", "source"):
        (root / "lib/modules" / version / link).unlink()
    (root / "boot").mkdir()
    shutil.copyfile(tree / "arch/x86/boot/bzImage", root / f"boot/vmlinuz-{version}")
    shutil.copyfile(tree / ".config", root / f"boot/config-{version}")
    return root
