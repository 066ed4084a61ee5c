"""How long somebody outside noticed that a worker was killed: from the signal to the first answer to a question that was
asked after it."""
import statistics
import threading


class Answers:
    """The last answer that came to the latest question. put() by one thread, first_after() by another."""

    def __init__(self):
        self.changed, self.asked, self.answered, self.trips = threading.Condition(), 0.0, 0.0, []

    def put(self, asked, answered):
        with self.changed:
            self.trips.append((answered - asked) * 1e3)
            if asked > self.asked:
                self.asked, self.answered = asked, answered
            self.changed.notify()

    def first_after(self, moment, patience=20.0):
        """When the first answer to a question after `moment` came; None when there is none."""
        with self.changed:
            found = self.changed.wait_for(lambda: self.asked > moment, patience)
            return self.answered if found else None


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


def rows(downtimes):
    """{who: [milliseconds]} as rows for a table and for JSON."""
    return [{"side": side, "kills": len(values), "p50_ms": statistics.median(values), "p90_ms": percentile(values, 90),
             "p99_ms": percentile(values, 99), "max_ms": max(values)} for side, values in downtimes.items() if values]


def table(rows):
    print(f"\n{'worker killed':<26} {'kills':>6} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for row in rows:
        print(f"{row['side']:<26} {row['kills']:>6} {row['p50_ms']:>8.2f} {row['p90_ms']:>8.2f} {row['p99_ms']:>8.2f} "
              f"{row['max_ms']:>8.2f}")
