"""The shared ring between two pinned threads, beside libxen-dev's macros and the best private rings."""
import json
import subprocess

from bench import MOODS, Bench, mood_of

bench = Bench("ring", __doc__)
trial_ms, rounds = ("40", 12) if bench.options.quick else ("100", 40)


def trial(contender):
    """(operations a second, mood), or None where this build lacks the contender."""
    done = subprocess.run([bench.program("ring_trial"), contender, trial_ms], capture_output=True, text=True)
    if done.returncode == 3:
        return None
    line = json.loads(done.stdout)
    bench.probes += [line["before"], line["after"]]
    return line["value"], mood_of(line["before"], line["after"])


def compare(case, ours, peer, aim):
    pairs = {name: [] for name, _ in MOODS}
    for _ in range(rounds):
        a, b = trial(ours), trial(peer)
        if a is None or b is None:
            return bench.note(f"{case} beside {peer}: skipped: this build has no {peer} (its package was not there)")
        if a[1] and a[1] == b[1] and a[0] > 0 and b[0] > 0:
            pairs[a[1]].append((a[0], b[0]))
    for mood, found in pairs.items():
        if found:
            bench.row(case, peer, "op/s", found, aim=aim, mood=mood)
    if not any(pairs.values()):
        bench.note(f"{case} beside {peer}: skipped: no pair of trials in one steady mood")


compare("batch32_vs_xen_macros", "ours_16", "xen_single_16", 3)
compare("batch32_vs_xen_macros", "ours_net", "xen_single_net", 3)
compare("batch32_vs_xen_macros_batched", "ours_16", "xen_16", None)
compare("batch32_vs_xen_macros_batched", "ours_net", "xen_net", None)
compare("batch32_vs_best_private", "ours_big_16", "rte_16", 0.9)
compare("batch32_vs_best_private", "ours_big_16", "boost_16", 0.9)
compare("roundtrip_vs_pingpong", "ours_one_16", "pingpong", 0.8)
compare("safety_cost", "ours_16", "unchecked_16", 0.95)
bench.note("an operation is a request answered; private rings do the same work as a pair of rings, slots and number of slots equal")
bench.note("xen_single: the macros as blkback answers and netfront asks, a push and its notify check a slot; "
           "xen: the same macros with a push and a final check a batch of 32; _16 and _net are the slots")
bench.finish()
