"""A recipe, made ready for an image: every module that it names becomes the files that it needs, in the order of loading.

All other words are for PID 1, which reads them with the parser that has checked them here (domains/service_vm/recipe.h).
"""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path


class Wrong(Exception):
    """The recipe is, or kernel.config; the text begins with FILE:LINE."""


def same(name):
    """Of a module: to the kernel - and _ are one."""
    return name.replace("-", "_")


def module_name(path):
    return Path(path).name.removesuffix(".ko")


class Modules:
    """What the kernel's modules.dep and modules.builtin say."""

    def __init__(self, kernel):
        self.kernel, self.paths, self.needs = kernel, {}, {}
        for line in (kernel.modules / "modules.dep").read_text().splitlines():
            path, _, needed = line.partition(":")
            self.paths[same(module_name(path))] = path
            self.needs[path] = needed.split()
        lines = (kernel.modules / "modules.builtin").read_text().splitlines()
        self.builtin = {same(module_name(path)) for path in lines}

    def in_order(self, name):
        """The module's files, those first that it needs: modules.dep names them from the last to the first."""
        path = self.paths[same(name)]
        return [*reversed(self.needs[path]), path]


@dataclass
class Prepared:
    lines: list = field(default_factory=list)    # the recipe as PID 1 reads it
    modules: dict = field(default_factory=dict)  # name to file


def prepare(recipe, modules):
    made = Prepared()
    for number, line in enumerate(recipe.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] != "module" or len(words) < 2:
            made.lines.append(" ".join(words))
            continue
        try:
            add_module(made, modules, words[1], words[2:])
        except Wrong as why:
            raise Wrong(f"{recipe}:{number}: {why}") from None
    return made


def add_module(made, modules, name, parameters):
    if same(name) in modules.builtin:
        if parameters:
            raise Wrong(f"'{name}' is built into the kernel {modules.kernel.version}: its parameters belong on the command line")
        return
    if same(name) not in modules.paths:
        raise Wrong(f"the kernel {modules.kernel.version} has no module '{name}'")
    *needed, itself = modules.in_order(name)
    for path in needed:
        if module_name(path) not in made.modules:
            made.lines.append(f"module {module_name(path)}")
            made.modules[module_name(path)] = modules.kernel.modules / path
    if module_name(itself) in made.modules:
        if parameters:
            raise Wrong(f"'{name}' is there already: its parameters come too late")
        return
    made.lines.append(" ".join(["module", module_name(itself), *parameters]))
    made.modules[module_name(itself)] = modules.kernel.modules / itself


def check(recipe, program):
    """By the parser of PID 1."""
    done = subprocess.run([program, "check", recipe], capture_output=True, text=True)
    if done.returncode != 0:
        raise Wrong(done.stderr.strip())
