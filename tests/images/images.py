#!/usr/bin/env python3
"""Images of service VMs, without Xen: what is in them, that they are reproducible, what is refused. Usage: images.py CAISSON-VM"""

import gzip
import os
import stat
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "images"))
import kernel as kernels  # noqa: E402
import service_vm  # noqa: E402
from debian import Kernel  # noqa: E402
from recipe import Modules, Wrong, prepare  # noqa: E402

PROGRAM = None
DEPENDENCIES = {"bridge": ["stp", "llc"], "nvme": ["nvme-core", "t10-pi"], "igb": ["dca"]}
OTHERS = ["xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-pcifront", "e1000e", "realtek", "r8169", "tun", "ahci", "sd_mod", "brd",
          "llc", "crc32c_generic", "nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "dca", "nvme-core", "t10-pi"]


def made_up_kernel(root):
    """A folder as Debian's kernel package and depmod leave it."""
    modules = root / "lib/modules/6.1-made-up"
    (modules / "kernel").mkdir(parents=True)
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-6.1-made-up").write_bytes(b"a kernel")
    needs = {**{name: [] for name in OTHERS}, "stp": ["llc"], **DEPENDENCIES}
    for name in needs:
        (modules / f"kernel/{name}.ko").write_bytes(f"module {name}".encode())
    (modules / "modules.dep").write_text("".join(
        f"kernel/{name}.ko:{''.join(f' kernel/{one}.ko' for one in needed)}\n" for name, needed in needs.items()))
    (modules / "modules.builtin").write_text("kernel/drivers/block/xen_blk_always.ko\n")
    return Kernel(root)


def listing(image):
    """Name to (mode, data) of a gzipped newc archive."""
    data, at, found = gzip.decompress(image), 0, {}
    while True:
        assert data[at:at + 6] == b"070701", at
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110:at + 110 + fields[11] - 1].decode()
        start = at + (110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        assert fields[5] == 0 and fields[2] == fields[3] == 0, f"{name} has a time or an owner"
        found[name] = (fields[1], data[start:start + fields[6]])
        at = (start + fields[6] + 3) // 4 * 4


class Images(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.kernel = made_up_kernel(self.folder / "kernel")

    def build(self, variant, recipe=None):
        return service_vm.build(variant, recipe or service_vm.variants()[variant], PROGRAM, self.kernel)

    def refusal(self, text):
        file = self.folder / "wrong.recipe"
        file.write_text(text)
        with self.assertRaises(Wrong) as caught:
            self.build("wrong", file)
        return str(caught.exception).removeprefix(f"{self.folder}/")

    def test_every_recipe_gives_an_image_with_one_program(self):
        for variant in ("network", "firewall", "storage"):
            found = listing(self.build(variant))
            programs = [name for name, (mode, _) in found.items() if stat.S_ISREG(mode) and mode & 0o111]
            self.assertEqual(programs, ["init"], variant)
            elves = [name for name, (_, data) in found.items() if data.startswith((b"\x7fELF", b"#!"))]
            self.assertEqual(elves, ["init"], variant)
            links = {name: data for name, (mode, data) in found.items() if stat.S_ISLNK(mode)}
            self.assertEqual(links, {"sbin/poweroff": b"/init", "sbin/reboot": b"/init"})
            devices = [name for name, (mode, _) in found.items() if stat.S_ISCHR(mode) or stat.S_ISBLK(mode)]
            self.assertEqual(devices, ["dev/console"])
            others = {name.partition("/")[0] for name, (mode, _) in found.items() if stat.S_ISREG(mode)}
            self.assertEqual(others, {"init", "modules", "recipe", "variant"})

    def test_the_program_needs_no_library_and_no_loader(self):
        data = listing(self.build("storage"))["init"][1]
        at, = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<IIQQQQ", data, at + i * size) for i in range(count)]
        interpreters = [one for one in headers if one[0] == 3]  # PT_INTERP
        self.assertEqual(interpreters, [])
        dynamic = [one for one in headers if one[0] == 2]  # PT_DYNAMIC: of a static-pie, without DT_NEEDED
        for _, _, offset, _, _, length in dynamic:
            tags = [struct.unpack_from("<Q", data, offset + i)[0] for i in range(0, length, 16)]
            self.assertNotIn(1, tags[:tags.index(0)])

    def test_the_same_inputs_give_the_same_bytes(self):
        first = self.build("network")
        for file in [*self.folder.rglob("*.ko")]:
            os.utime(file, (1, 1))
            file.chmod(0o600)
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.assertEqual(first, self.build("network"))

    def test_modules_come_after_those_that_they_need(self):
        recipe = self.folder / "order.recipe"
        recipe.write_text("module bridge\nmodule nvme\nmodule llc\nserve backends\n")
        made = prepare(recipe, Modules(self.kernel))
        self.assertEqual(made.lines, ["module llc", "module stp", "module bridge", "module t10-pi", "module nvme-core",
                                      "module nvme", "serve backends"])
        recipe.write_text("module sd-mod\nmodule xen-blk-always\nserve backends\n")
        self.assertEqual(prepare(recipe, Modules(self.kernel)).lines, ["module sd_mod", "serve backends"])

    def test_a_wrong_recipe_is_refused_with_its_line(self):
        self.assertEqual(self.refusal("serve backends\nrun /bin/sh\n"), "wrong.recipe:2: there is no word 'run'")
        self.assertEqual(self.refusal("# none\nmodule bash\nserve backends\n"),
                         "wrong.recipe:2: the kernel 6.1-made-up has no module 'bash'")
        self.assertEqual(self.refusal("module bridge\nmodule llc x=1\nserve backends\n"),
                         "wrong.recipe:2: 'llc' is there already: its parameters come too late")
        self.assertIn("is built into the kernel", self.refusal("module xen-blk-always x=1\nserve backends\n"))

    def test_an_option_that_falls_out_of_a_kernel_is_named(self):
        options, config = self.folder / "kernel.config", "CONFIG_A=y\n# CONFIG_AB is not set\nCONFIG_NAME=\"x\"\n"

        def checked(text):
            options.write_text(text)
            try:
                return kernels.check(options, config)
            except Wrong as why:
                return str(why).removeprefix(f"{options}:")

        self.assertIsNone(checked("# a reason\n\nCONFIG_A=y\nCONFIG_NAME=\"x\"\n"))
        self.assertEqual(checked("CONFIG_A=y\nCONFIG_AB=m\n"), "2: asked for is CONFIG_AB=m, and it is '# CONFIG_AB is not set'")
        self.assertEqual(checked("CONFIG_A=m\n"), "1: asked for is CONFIG_A=m, and it is 'CONFIG_A=y'")
        self.assertEqual(checked("CONFIG_B=y\n"), "1: asked for is CONFIG_B=y, and there is no such option, or what it depends"
                                                  " on is not asked for")

    def test_the_options_of_our_kernel_are_asked_for_once(self):
        names = [line.partition("=")[0] for line in kernels.OPTIONS.read_text().splitlines() if line and line[0] != "#"]
        self.assertEqual([name for name in names if not name.startswith("CONFIG_")], [])
        self.assertEqual(sorted(names), sorted(set(names)))

    def test_a_kernel_has_the_mitigations_that_its_source_has(self):
        self.assertEqual(kernels.mitigations(
            "config BEFORE\n\tdefault y\nmenuconfig CPU_MITIGATIONS\n\tdefault y\n\nif CPU_MITIGATIONS\n\nconfig ONE\n\tbool \"One\"\n"
            "\tdefault y if X86_64\n\nconfig COSTLY\n\tbool \"No\"\n\tdefault n\n\nconfig TWO\n\tdefault y\n\tdepends on ONE\n\nendif\n\n"
            "config BEHIND\n\tdefault y\n"), "CONFIG_ONE=y\nCONFIG_TWO=y\n")

    def test_a_kernel_is_built_again_when_what_it_is_made_from_is_another(self):
        source, other = self.folder / "linux.tar.xz", self.folder / "linux-again.tar.xz"
        for file in (source, other):
            file.write_bytes(b"source")
        first = kernels.identity(source, kernels.OPTIONS, ["gcc 12", "ld 2"])
        self.assertEqual(first, kernels.identity(other, kernels.OPTIONS, ["gcc 12", "ld 2"]))
        other.write_bytes(b"newer")
        self.assertEqual(4, len({first, kernels.identity(other, kernels.OPTIONS, ["gcc 12", "ld 2"]),
                                 kernels.identity(source, other, ["gcc 12", "ld 2"]),
                                 kernels.identity(source, kernels.OPTIONS, ["gcc 13", "ld 2"])}))

    def test_the_command_says_what_is_wrong(self):
        command = [sys.executable, ROOT / "images/build", "--program", PROGRAM, "--out", self.folder / "out",
                   "--kernel", self.kernel.root]
        done = subprocess.run([*command, "coffee"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "images: there is no recipe 'coffee'; there are: firewall network storage\n"))
        done = subprocess.run([*command, "firewall"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "out/firewall/initramfs").read_bytes(), self.build("firewall"))
        self.assertIn("driver_domain = 1", (self.folder / "out/firewall/sys-firewall.cfg").read_text())


if __name__ == "__main__":
    PROGRAM = Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
