"""netperf and iperf3 from a guest through one and through two driver domains, beside veth and a bridge, and beside the
simplest copier between two TAPs that there can be (net_copier: one process, no rings, no domains)."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time

from bench import Bench, run
from local_system import System, cmdline, cpu_seconds, descendants

bench = Bench("net", __doc__)
seconds, rounds = (1, 3) if bench.options.quick else (3, 7)
UPLINK = "192.0.2.2"  # sys-net's own address on its uplink: where every stream through Caisson ends
FIREWALL = """table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "vif*" oifname "eth0" accept
    }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
}
"""

# (name, unit, command): a number, more is better. {} is the target.
netperf = "netperf -P 0 -H {} -l %d -t %s -- %s"
tests = []
if shutil.which("netperf"):
    tests += [("netperf TCP_STREAM", "Mbit/s", netperf % (seconds, "TCP_STREAM", "-o THROUGHPUT")),
              ("netperf TCP_MAERTS", "Mbit/s", netperf % (seconds, "TCP_MAERTS", "-o THROUGHPUT")),
              ("netperf TCP_RR", "trans/s", netperf % (seconds, "TCP_RR", "-o THROUGHPUT")),
              ("netperf UDP_STREAM", "Mbit/s", netperf % (seconds, "UDP_STREAM", "-R 1 -m 1472 -o REMOTE_RECV_THROUGHPUT"))]
else:
    bench.note("netperf: skipped: not installed (Debian's non-free section; ./dev bench net --nonfree enables it)")
if shutil.which("iperf3"):
    iperf3 = ("iperf3 -c {} -t %d %s -f m -J | python3 -c 'import json,sys; "
              "print(json.load(sys.stdin)[\"end\"][\"sum_received\"][\"bits_per_second\"]/1e6)'")
    tests += [("iperf3", "Mbit/s", iperf3 % (seconds, "")), ("iperf3 -R", "Mbit/s", iperf3 % (seconds, "-R"))]
else:
    bench.note("iperf3: skipped: not installed")


class Caisson:
    """A guest, and the domains whose workers carry its packets."""

    def __init__(self, system, guest, hops):
        self.system, self.guest, self.hops = system, guest, hops

    def measure(self, command):
        return float(self.system.exec(self.guest, command.format(UPLINK)).split()[-1])

    def cpu(self):
        """Seconds that the services of each domain on the way have used."""
        used, domains = {}, self.system.domains()
        for name in [self.guest, *self.hops]:
            used[name] = cpu_seconds(pid for pid in descendants(domains[name]["pid"])
                                     if cmdline(pid)[1:2] == ["worker"])
        return used


class Namespaces:
    """Two network namespaces, and something between them."""

    def __init__(self, near, target):
        self.near, self.target = near, target

    def measure(self, command):
        return float(run(["ip", "netns", "exec", self.near, "sh", "-c", command.format(self.target)]).split()[-1])


def remove_leftovers():
    """Namespaces of a run that was killed, and who is still in them."""
    for line in run(["ip", "netns", "list"]).splitlines():
        name = line.split()[0]
        owner = re.fullmatch(r"bench-(\d+)-.*", name)
        if not owner or os.path.exists(f"/proc/{owner[1]}"):
            continue
        for pid in run(["ip", "netns", "pids", name]).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "del", name])


WITH_US = ["setpriv", "--pdeathsig", "KILL"]  # a server does not outlive the benchmark, whatever ends that


def servers(stack, prefix):
    for words in (["netserver", "-D"], ["iperf3", "-s"]):
        if shutil.which(words[0]):
            process = subprocess.Popen([*WITH_US, *prefix, *words], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)


def namespaces(stack, name, network):
    near, far = f"bench-{os.getpid()}-{name}-a", f"bench-{os.getpid()}-{name}-b"
    for one in (near, far):
        run(["ip", "netns", "add", one])
        stack.callback(subprocess.run, ["ip", "netns", "del", one])
        run(["ip", "-n", one, "link", "set", "lo", "up"])
    interfaces = network(stack, near, far)
    for one, interface, address in ((near, interfaces[0], "1"), (far, interfaces[1], "2")):
        run(["ip", "-n", one, "addr", "add", f"198.51.100.{address}/24", "dev", interface])
        run(["ip", "-n", one, "link", "set", interface, "up"])
    servers(stack, ["ip", "netns", "exec", far])
    return Namespaces(near, "198.51.100.2")


def copier(stack, near, far):
    process = subprocess.Popen([*WITH_US, bench.program("net_copier"), near, "tap0", far, "tap0"], stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.kill)
    process.stdout.readline()
    return "tap0", "tap0"


def veth_and_bridge(stack, near, far):
    run(["ip", "-n", far, "link", "add", "va", "type", "veth", "peer", "name", "eth0", "netns", near])
    run(["ip", "-n", far, "link", "add", "br0", "type", "bridge"])
    run(["ip", "-n", far, "link", "set", "va", "master", "br0", "up"])
    return "eth0", "br0"


def main():
    remove_leftovers()
    with contextlib.ExitStack() as stack:
        system = stack.enter_context(System(os.environ["CAISSON"]))
        system.create("sys-net", driver_domain=1, caisson_forward=1,
                      caisson_uplink=f"sandbox,ip={UPLINK}/24,peer=192.0.2.1/24")
        system.create("near", vif=["backend=sys-net,ip=10.137.0.2,gatewaydev=uplink0"],
                      caisson_net=[f"dev=eth0,ip=10.137.0.2/32,gateway={UPLINK}"])
        rules = system.file("sys-firewall.nft", FIREWALL)
        system.create("sys-firewall", driver_domain=1, caisson_forward=1, caisson_nftables=rules,
                      vif=["backend=sys-net,ip=10.137.0.3,gatewaydev=uplink0"],
                      caisson_net=[f"dev=eth0,ip=10.137.0.3/32,gateway={UPLINK}"])
        system.create("far", vif=["backend=sys-firewall,ip=10.137.0.4,gatewaydev=eth0"],
                      caisson_net=["dev=eth0,ip=10.137.0.4/32,gateway=10.137.0.3"])
        servers(stack, system.command("exec", "sys-net", "--"))
        ours = Caisson(system, "near", ["sys-net"])
        chain = Caisson(system, "far", ["sys-firewall", "sys-net"])
        peer = {"copier": namespaces(stack, "copier", copier),
                "veth+bridge": namespaces(stack, "veth", veth_and_bridge)}
        time.sleep(0.5)
        measure_all(ours, chain, peer)
    bench.finish()


def measure_all(ours, chain, peers):
    found = {}
    for name, unit, command in tests:
        pairs = {"copier": [], "veth+bridge": [], "chain": []}
        for _ in range(rounds if bench.options.quick is False or "STREAM" in name or "RR" in name else 2):
            bench.probe()
            one = ours.measure(command)
            pairs["copier"].append((one, peers["copier"].measure(command)))
            pairs["veth+bridge"].append((one, peers["veth+bridge"].measure(command)))
            pairs["chain"].append((chain.measure(command), one))
        found[name] = [one for one, _ in pairs["copier"]]
        bench.row(f"one_hop_vs_copier ({name})", "TAP copier", unit, pairs["copier"], aim=0.9)
        bench.row(f"one_hop_vs_veth ({name})", "veth+bridge", unit, pairs["veth+bridge"])
        bench.row(f"chain_vs_one_hop ({name})", "one hop", unit, pairs["chain"])
    for there, back in (("netperf TCP_STREAM", "netperf TCP_MAERTS"), ("iperf3", "iperf3 -R")):
        if there in found:
            pairs = [(min(pair), max(pair)) for pair in zip(found[there], found[back])]
            bench.row(f"direction_symmetry ({there})", "faster direction", "Mbit/s", pairs, aim=0.9)
    cpu_per_hop(chain)


def cpu_per_hop(chain):
    if not tests:
        return
    name, unit, command = tests[0]
    before = chain.cpu()
    gigabytes = chain.measure(command) * seconds / 8e3
    used = {domain: seconds_now - before[domain] for domain, seconds_now in chain.cpu().items()}
    bench.note(f"CPU of the workers on the chain, {name}, seconds per GB: " +
               ", ".join(f"{domain} {value / gigabytes:.2f}" for domain, value in used.items()))


main()
