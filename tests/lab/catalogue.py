"""The scenarios: files whose first line says what they show, and in which a few more lines speak to the host."""

import os
import re
from pathlib import Path

SCENARIOS = Path(__file__).resolve().parent / "scenarios"


def scenarios():
    """Name to what its first line says of it."""
    return {file.stem: file.read_text().splitlines()[0].lstrip("# ") for file in sorted(SCENARIOS.glob("*.sh"))}


def limit_of(name):
    found = re.search(r"^limit=(\d+)", (SCENARIOS / f"{name}.sh").read_text(), re.MULTILINE)
    return int(found[1]) if found else 180


def draft(name):
    """Why a scenario is no verdict yet, in its own words; none: it is one."""
    found = re.search(r'^draft="([^"]+)"', (SCENARIOS / f"{name}.sh").read_text(), re.MULTILINE)
    return found[1] if found else None


def measures(name):
    """It is run by a benchmark, which also reads its figures."""
    return re.search(r"^measures=yes", (SCENARIOS / f"{name}.sh").read_text(), re.MULTILINE)


def machine_of(name):
    """What its machine has beyond the usual: devices (an IOMMU, a NIC and an NVMe controller), flask (a Xen that enforces a policy),
    fio (in domains with NAME_fio=yes)."""
    return set(re.findall(r"^(devices|flask|fio)=yes", (SCENARIOS / f"{name}.sh").read_text(), re.MULTILINE))


def busy():
    """A hang is an error, slowness is none: who shares the processors with others gets so many times the time."""
    return 1 + min(int(os.getloadavg()[0] / (os.cpu_count() or 1)), 9)
