"""Xen with XSM/FLASK, and the policy of domains/policy for it, from Debian's source package: Debian's own Xen has neither."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from packages import Skip, program, run

POLICY = Path(__file__).resolve().parents[2] / "domains/policy/caisson.te"
OPTIONS = ["EXPERT", "UNSUPPORTED", "XSM", "XSM_FLASK"]
# Xen's own, but for what it allows to every domain (guest_features) and for kinds of domains that ours take the place of.
MODULES = ["xen", "dom0", "domU", "xenstore", "caisson", "all_system_role"]
TOOLS = ["gcc", "make", "flex", "bison", "m4", "checkpolicy", "dpkg-source"]


def xen(cache):
    """The hypervisor as QEMU boots it, and the policy that a boot loader hands to it: the one is built once, the other is always."""
    folder = Path(cache).resolve() / "flask"
    for tool in TOOLS:
        program(tool)
    source = folder / "source"
    if not source.exists():
        fetch(folder, source)
    built, stamp = folder / "xen", folder / "built-from"
    wanted = hashlib.sha256(" ".join(OPTIONS).encode()).hexdigest()
    if not built.exists() or not stamp.exists() or stamp.read_text() != wanted:
        make(source / "xen")
        shutil.copy(source / "xen/xen", built)
        stamp.write_text(wanted)
    policies = source / "tools/flask/policy"
    shutil.copy(POLICY, policies / "modules")
    run("make", "-B", "-C", policies, "-f", "Makefile.common", f"FLASK_BUILD_DIR={folder}", f"POLICY_FILENAME={folder}/policy",
        f"ENABLED_LIST={' '.join(MODULES)}")
    return built, folder / "policy"


def fetch(folder, source):
    """The newest source that apt's own mirror has: a security update has none there, so it can be a little older."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "apt/lists").mkdir(parents=True)
    told = run("apt-get", "indextargets", "--format", "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(CREATED_BY)")
    mirrors = re.findall(r"^(\S+?)\|([a-z]+)\|main\|Packages$", told, re.MULTILINE)
    if not mirrors:
        raise Skip("apt knows no mirror of Debian whose sources could be fetched")
    uri, suite = mirrors[0]
    (folder / "apt/sources.list").write_text(f"deb-src {uri} {suite} main\n")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={folder}/apt/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
           "-o", f"Dir::State::lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt", "-o", "APT::Sandbox::User=root"]
    run(*apt, "update")
    run(*apt, "--download-only", "source", "xen", cwd=folder)
    run(program("dpkg-source"), "--no-check", "-x", next(folder.glob("*.dsc")), source)


def make(tree):
    run("make", "-C", tree, "defconfig")
    with open(tree / ".config", "a") as config:
        config.write("".join(f"CONFIG_{option}=y\n" for option in OPTIONS))
    run("make", "-C", tree, "olddefconfig")
    with open(tree.parent / "build.log", "wb") as log:
        done = subprocess.run(["make", "-C", str(tree), f"-j{os.cpu_count() or 1}", "build"], stdout=log, stderr=log)
    if done.returncode != 0:
        raise Skip(f"Xen with XSM does not build: see {tree.parent}/build.log")
