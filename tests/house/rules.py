#!/usr/bin/env python3
"""The rules of the house, read from the tree itself. Usage: rules.py RULE ROOT, or rules.py self-test.

Each rule is a function from the root folder to a list of complaints; an empty list is a house in order.
"""
import os
import re
import sys
import tempfile
from pathlib import Path

SOURCE = {".h", ".cpp"}
NOT_A_ROOM = {"build", "corpus"}  # build trees; fuzz inputs are data


def folders(root):
    """Every folder of the project below the root, as a path relative to it."""
    for path, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in NOT_A_ROOM and n != "__pycache__")
        here = Path(path).relative_to(root)
        if here.parts and (files or names):
            yield here


def files(root, suffixes=None):
    for folder in [Path("."), *folders(root)]:
        for entry in sorted((root / folder).iterdir()):
            if entry.is_file() and not entry.name.startswith(".git") and (not suffixes or entry.suffix in suffixes):
                yield entry.relative_to(root)


def text(root, file):
    return (root / file).read_text(encoding="utf-8", errors="replace")


# ---- Look down, never sideways or up -------------------------------------------------------------------------------

SHARED_WORDS = ("protocols/words.h", "protocols/xenbus.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
STANDARD = re.compile(r"^[a-z_]+$")  # <span>, <cstdint>; whatever has a dot or a slash is not the standard library


def may_include(file, included):
    room, inner = file.parts[0], file.parts[1] if len(file.parts) > 2 else ""
    if included.startswith("ring/detail/"):  # addresses of shared memory
        return room in ("ring", "tests")
    if room == "protocols":
        return included.startswith("protocols/")
    if room == "ring":
        return included.startswith("ring/") or included in SHARED_WORDS
    if room in ("frontends", "backends"):
        return included.startswith(("ring/", "protocols/", f"{room}/{inner}/"))
    if room == "domains":
        if inner == "hypervisor":  # plays Xen, which knows no device class
            return included.startswith(("ring/", "domains/hypervisor/")) or included in SHARED_WORDS
        return included.startswith(("protocols/", "ring/", "frontends/", "backends/", "domains/"))
    return True  # tests look at everything


def layers(root):
    wrong = []
    for file in files(root, SOURCE):
        for quote, included in INCLUDE.findall(text(root, file)):
            if quote == "<":
                if file.parts[0] == "protocols" and not STANDARD.match(included):
                    wrong.append(f"{file} includes <{included}>: protocols/ sees nothing but the standard library")
            elif file.parts[:2] == ("tests", "examples"):
                pass  # a vendor's project: it has include paths of its own
            elif not (root / included).is_file():
                wrong.append(f'{file} includes "{included}": include paths start at the root of the project')
            elif not may_include(file, included):
                wrong.append(f'{file} includes "{included}": {file.parts[0]}/ may not look there')
    return wrong


# ---- Every folder says what it is and how to add one more ----------------------------------------------------------

def readmes(root):
    wrong = []
    for folder in folders(root):
        readme = root / folder / "README.md"
        if not readme.is_file():
            wrong.append(f"{folder}/ has no README.md")
            continue
        lines = readme.read_text().splitlines()
        headings = [line.lstrip("# ").strip().lower() for line in lines if re.match(r"#+ ", line)]
        if not headings or not headings[-1].startswith("to add one more"):
            wrong.append(f'{folder}/README.md does not end with a section "To add one more"')
    return wrong


# ---- The same noun in every room -----------------------------------------------------------------------------------

def classes(root):
    """A class is a folder in frontends/ or backends/; it must then be in every other room under the same name."""
    found = set()
    for room in ("frontends", "backends"):
        found |= {entry.name for entry in (root / room).iterdir() if entry.is_dir()} if (root / room).is_dir() else set()
    wrong = []
    for name in sorted(found):
        expected = [f"protocols/{name}.h"] + [f"{room}/{name}/{file}" for room in ("frontends", "backends")
                                              for file in (f"{name}.h", "control.cpp", "worker.cpp")]
        wrong += [f"{name} has no {file}" for file in expected if not (root / file).is_file()]
        for kind in ("pairs", "hostile", "fuzz"):
            if not list((root / "tests" / kind).glob(f"{name}*.cpp")):
                wrong.append(f"{name} has no test tests/{kind}/{name}*.cpp")
        catalogue = root / "domains" / "catalogue.cpp"
        if not catalogue.is_file() or f"/{name}/" not in catalogue.read_text():
            wrong.append(f"{name} has no row in domains/catalogue.cpp")
    return wrong


# ---- The project runs on any machine -------------------------------------------------------------------------------

EVERYWHERE = {"bin", "boot", "builds", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "root", "run", "srv", "sys",
              "tmp", "usr", "var"}


def paths(root):
    forbidden = [re.escape(str(root)) + r"\b", r"/(home|Users)/[a-z]", r"/tmp/build"]
    if root.parts[1] not in EVERYWHERE:
        forbidden.append(rf"(?<![\w.}}/])/{re.escape(root.parts[1])}/")
    pattern = re.compile("|".join(forbidden))
    wrong = []
    for file in files(root):
        if file == Path("tests/house/rules.py"):
            continue
        for number, line in enumerate(text(root, file).splitlines(), 1):
            if pattern.search(line):
                wrong.append(f"{file}:{number} names a path of one machine: {line.strip()}")
    return wrong


# ---- Every advisory has its test, or a reason -----------------------------------------------------------------------

def advisories(root):
    file = Path("tests/hostile/README.md")
    if not (root / file).is_file():
        return [f"{file} is missing"]
    cases = set()
    for one in files(root, {".cpp"}):
        if one.parts[0] == "tests":
            for name in re.findall(r'TEST_CASE\(\s*"([^"]*)', text(root, one)):
                cases |= {int(number) for number in re.findall(r"(?:xsa_|(?<=\d)_(?:and_)?)0*(\d+)", name)}
    wrong = []
    for number, verdict in re.findall(r"^\| XSA-(\d+) \|[^|]*\| ([^|]*) \|$", text(root, file), re.M):
        if verdict == "named" and int(number) not in cases:
            wrong.append(f"{file}: XSA-{number} is said to be a test, but no TEST_CASE is named xsa_{number}_...")
        if verdict != "named" and not verdict.startswith(("not applicable", "the same")):
            wrong.append(f"{file}: XSA-{number}: neither 'named' nor a reason")
    return wrong


RULES = {"layers": layers, "readmes": readmes, "classes": classes, "paths": paths, "advisories": advisories}


def self_test():
    """A house that breaks every rule is found to break every rule, and each offence is named."""
    broken = {
        "protocols/x.h": '#include <xen/io/netif.h>\n#include "ring/loop.h"\n',
        "protocols/README.md": "# protocols\n## To add one more\nAdd it.\n",
        "ring/loop.h": '#include "protocols/x.h"\n',
        "ring/README.md": "# ring\n",
        "frontends/x/frontend.h": '#include "backends/x/backend.h"\n#include "loop.h"\n',
        "ring/detail/shared_access.h": "",
        "tests/hostile/README.md": "| XSA-1 | x | named |\n| XSA-2 | x | later |\n| XSA-3 | x | named |\n",
        "tests/hostile/other.cpp": 'TEST_CASE("xsa_003 holds") {}\n',
        "backends/x/backend.h": '#include "ring/detail/shared_access.h"\n// see /home/somebody/notes\n',
        "domains/hypervisor/broker.h": '#include "protocols/x.h"\n',
    }
    expected = {
        "layers": ["<xen/io/netif.h>", 'protocols/x.h includes "ring/loop.h"', 'ring/loop.h includes "protocols/x.h"',
                   'frontends/x/frontend.h includes "backends/x/backend.h"', 'frontends/x/frontend.h includes "loop.h"',
                   'backends/x/backend.h includes "ring/detail/', "domains/hypervisor/broker.h includes"],
        "readmes": ["backends/ has no", "domains/hypervisor/ has no", "ring/README.md does not end"],
        "classes": ["x has no frontends/x/worker.cpp", "x has no test tests/hostile", "x has no row"],
        "paths": ["backends/x/backend.h:2"],
        "advisories": ["XSA-1 is said", "XSA-2: neither"],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name, content in broken.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        missed = [f"{rule} does not notice: {part}" for rule, parts in expected.items()
                  for part in parts if not any(part in complaint for complaint in RULES[rule](root))]
        missed += [f"{rule} complains too much" for rule, count in {"layers": 7, "paths": 1}.items()
                   if len(RULES[rule](root)) != count]
    return missed


def main():
    if len(sys.argv) == 2 and sys.argv[1] == "self-test":
        wrong = self_test()
    elif len(sys.argv) == 3 and sys.argv[1] in RULES:
        wrong = RULES[sys.argv[1]](Path(sys.argv[2]).resolve())
    else:
        sys.exit(f"usage: {sys.argv[0]} {{{'|'.join(RULES)}}} ROOT | self-test")
    print("\n".join(wrong) if wrong else "in order")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
