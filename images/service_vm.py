"""From a recipe to an image."""

import shutil
import tempfile
from pathlib import Path

import initramfs
from debian import program, run
from recipe import Modules, check, prepare

HERE = Path(__file__).resolve().parent


def variants():
    return {file.stem: file for file in sorted(HERE.glob("*.recipe"))}


def stripped(source):
    """Its bytes without symbols."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "init"
        shutil.copyfile(source, copy)
        run(program("strip"), "--strip-all", copy)
        return copy.read_bytes()


def build(variant, recipe, vm_program, kernel):
    """The initramfs, as bytes. `vm_program` is the build's domains/caisson-vm."""
    check(recipe, vm_program)
    prepared = prepare(recipe, Modules(kernel))
    return initramfs.packed(initramfs.entries(stripped(vm_program), variant, prepared))
