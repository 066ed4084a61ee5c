"""The language that all benchmarks speak: rows, their table, their JSON.

A row compares ours with one peer in one case. n paired trials alternate (ours, peer, ours, peer ...); `ours` and
`peer_value` are medians, `ratio` is the median of the paired ratios and `min`, `max` their range. A ratio above 1 is
better than the peer, whatever the unit. `aim` is what the project wants of the ratio, or null.

These machines change mood: the hypervisor underneath moves the virtual CPUs between placements, and a cache line's round
trip is then about 50 ns (one core's two threads: sibling), 110 ns (near) or 300-550 ns (far). It is probed before and after
each trial; a trial whose two probes disagree is thrown away. Rows of different moods are told apart.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys

from local_system import unwind_on_signals

MOODS = (("sibling", 80.0), ("near", 180.0), ("far", 800.0))  # ns, up to; above, somebody else had the CPU


def mood_of(before, after):
    moods = {next((name for name, most in MOODS if ns <= most), None) for ns in (before, after)}
    return moods.pop() if len(moods) == 1 else None


class Bench:
    def __init__(self, name, description, **switches):
        """`switches`: what this benchmark may be told beyond the usual, and its help."""
        parser = argparse.ArgumentParser(prog=f"bench {name}", description=description)
        parser.add_argument("--quick", action="store_true", help="end within a minute")
        parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
        for switch, help in switches.items():
            parser.add_argument(f"--{switch.replace('_', '-')}", action="store_true", help=help)
        self.options = parser.parse_args()
        unwind_on_signals()
        self.name, self.rows, self.notes, self.probes = name, [], [], []

    def program(self, name):
        return os.path.join(os.environ["PROGRAMS"], name)

    def probe(self):
        """A cache line's round trip now, in ns: the mood."""
        ns = json.loads(run([self.program("ring_trial"), "pingpong", "3"]))["before"]
        self.probes.append(ns)
        return ns

    def row(self, case, peer, unit, pairs, aim=None, mood=None, less_is_better=False, **more):
        """pairs: (ours, peer) of alternating trials."""
        if not pairs:
            self.note(f"{case} beside {peer}: skipped: no trial in a steady mood")
            return
        ratios = [(theirs / ours if less_is_better else ours / theirs) for ours, theirs in pairs if ours and theirs]
        self.rows.append({
            "case": case, "mood": mood, "ours": statistics.median(p[0] for p in pairs), "peer": peer,
            "peer_value": statistics.median(p[1] for p in pairs), "unit": unit, "n": len(pairs),
            "min": min(ratios), "max": max(ratios), "ratio": statistics.median(ratios), "aim": aim, **more})

    def note(self, text):
        self.notes.append(text)

    def finish(self, failed=()):
        """`failed`: what did not run to its end, and where to look; then the exit code says so."""
        if self.options.json:
            with open(self.options.json, "w") as file:
                json.dump({"bench": self.name, "quick": self.options.quick, "probes_ns": self.probes,
                           "rows": self.rows, "notes": self.notes}, file, indent=1)
        print(table(self.rows))
        for text in self.notes:
            print(f"  {text}")
        if failed:
            sys.exit("\n".join(failed))


def figures_in(log):
    """The lines "FIGURE CASE/CONTENDER NUMBER..." of a scenario's log, by case and contender, in the order in which they were measured."""
    figures = {}
    text = log.read_text(errors="replace") if log.exists() else ""
    for case, contender, rest in re.findall(r"^FIGURE (\S+)/(\S+) ([\d. ]+)", text, re.MULTILINE):
        figures.setdefault(case, {}).setdefault(contender, []).append([float(word) for word in rest.split()])
    return figures


def table(rows):
    head = ["case", "mood", "ours", "peer", "peer's", "unit", "n", "ratio", "range", "aim"]
    body = [[r["case"], r["mood"] or "-", number(r["ours"]), r["peer"], number(r["peer_value"]), r["unit"], str(r["n"]),
             f"{r['ratio']:.2f}", f"{r['min']:.2f}..{r['max']:.2f}", verdict(r)] for r in rows]
    widths = [max(len(line[i]) for line in [head] + body) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [head] + body]
    return "\n".join([lines[0], "-" * len(lines[0])] + lines[1:])


def verdict(row):
    if row["aim"] is None:
        return "reported"
    return f">= {row['aim']}" + ("" if row["ratio"] >= row["aim"] else "  (short)")


def number(value):
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {letter}"
    return f"{value:.2f}"


def run(command, **more):
    """Standard output of a command; a failure is told with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)}: exit {done.returncode}\n{done.stderr.strip()}")
    return done.stdout
