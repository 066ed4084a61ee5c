"""What a system that does nothing costs: a network domain, a firewall domain and a guest, all connected and left alone."""
import os
import time

from bench import Bench
from local_system import System, cmdline, cpu_seconds

bench = Bench("idle", __doc__)
seconds = 10 if bench.options.quick else 30
LIMIT = 2.0  # percent of one core


def ours(system):
    """Every process of ours: the hypervisor, keepers, each domain's services, workers and spares."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and
            (cmdline(pid)[:1] == [system.caisson] or os.path.basename((cmdline(pid) or [""])[0]) == "caisson" or
             cmdline(pid)[:1] == ["/proc/self/exe"])]


with System(os.environ["CAISSON"]) as system:
    system.create("sys-net", driver_domain=1, caisson_forward=1, caisson_uplink="sandbox,ip=192.0.2.2/24,peer=192.0.2.1/24")
    system.create("sys-firewall", driver_domain=1, caisson_forward=1,
                  vif=["backend=sys-net,ip=10.137.0.3,gatewaydev=uplink0"],
                  caisson_net=["dev=eth0,ip=10.137.0.3/32,gateway=192.0.2.2"])
    system.create("guest", vif=["backend=sys-firewall,ip=10.137.0.4,gatewaydev=eth0"],
                  caisson_net=["dev=eth0,ip=10.137.0.4/32,gateway=10.137.0.3"])
    time.sleep(3)  # spares arm, neighbours are discovered
    pids = ours(system)
    before, start = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    used = 100 * (cpu_seconds(pids) - before) / (time.monotonic() - start)
    bench.note(f"{len(pids)} processes used {used:.2f} % of one core in {seconds} s")
    bench.row("idle_system", "the limit", "% of a core", [(max(used, 0.01), LIMIT)], aim=1.0, less_is_better=True)
bench.finish()
