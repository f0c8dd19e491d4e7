"""Every bad day of a node against the real agent: who is asked answers in time, names the cause, and comes back.

One agent lives through all of them in turn, while /healthz and /metrics are asked without a pause, each time over a new
connection. Prints what named each failure, and `FAILURE_name value unit` lines. Exit code 1 if a bound is broken:
/healthz p99 50 ms, /metrics p99 20 ms, a cause named, nothing on the page that cannot be known, no growth of threads,
open files or memory, recovery without a restart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: `agent` would be the file there

from bench.harness.failures import ENERGY, FAILURES, Failure, healthy
from bench.harness.mounts import ROOT
from bench.harness.node import PATIENCE, Node, Page, Usage

BOUNDS_MS = {"healthz": 50.0, "metrics": 20.0}
RSS_GROWTH_MB = 4.0
PAUSE = 0.02
LOOK_EVERY = 0.5


@dataclass
class Watch:
    """Asks without pause and keeps what it took; looks at the page from time to time."""

    node: Node
    took: dict[str, list[float]] = field(default_factory=lambda: {path: [] for path in BOUNDS_MS})
    usages: list[Usage] = field(default_factory=list)

    def until(self, seen: Callable[[Page], object], patience: float = PATIENCE) -> Page | None:
        """The first page on which `seen` finds what it looks for; None if it does not within `patience` seconds."""
        end, look = time.monotonic() + patience, 0.0
        while time.monotonic() < end:
            for path, took in self.took.items():
                seconds, body = self.node.ask(f"/{path}")
                took.append(seconds)
            self.usages.append(self.node.usage())
            if time.monotonic() >= look:
                look = time.monotonic() + LOOK_EVERY
                if seen(page := Page(body.decode())):
                    return page
            time.sleep(PAUSE)
        return None

    def rest(self, seconds: float) -> Usage:
        """Go on for so long; the least that was held meanwhile, for what comes and goes is no growth."""
        self.usages.clear()
        self.until(lambda page: False, seconds)
        held = self.usages
        least = [min(getattr(usage, name) for usage in held) for name in ("rss", "threads", "fds")]
        return Usage(*least, children=max(usage.children for usage in held))


class Report:
    """The lines of one run, and whether all bounds held."""

    def __init__(self) -> None:
        self.good = True

    def line(self, name: str, value: float, unit: str, good: bool = True) -> None:
        print(f"{name} {value:.4g} {unit}" + ("" if good else "   BROKEN"), flush=True)
        self.good &= good

    def cause(self, name: str, evidence: str) -> None:
        print(f"# {name}: {evidence or 'NOT NAMED'}", flush=True)
        self.good &= bool(evidence)


def live_through(node: Node, failure: Failure, seconds: float, report: Report) -> None:
    """One failure, from before it until it is over."""
    watch, name = Watch(node), failure.name
    if not failure.first:
        before = watch.rest(2.0)
    began = time.monotonic()
    with failure.provoke(node):
        if failure.first:
            node.start()
            before = watch.rest(2.0)
            watch = Watch(node)
        page = watch.until(failure.cause)
        named = time.monotonic() - began
        report.cause(name, failure.cause(page) if page else "")
        watch.until(failure.settled)
        first = watch.rest(2.0)
        held = watch.rest(max(seconds, failure.lasts))
        untrue = failure.untrue(node.page())
        frozen = _frozen(node)
    lifted = time.monotonic()
    over = watch.until(failure.over)
    recovered = time.monotonic() - lifted
    after = watch.rest(2.0)
    if after.threads > before.threads or after.fds > before.fds:  # more than one who comes and goes, or a leak
        after = watch.rest(20.0)
    report.line(f"{name}_named_after_s", named, "s")
    for path, took in watch.took.items():
        p99 = quantiles(took, n=100, method="inclusive")[98] * 1e3
        report.line(f"{name}_{path}_p99_ms", p99, "ms", p99 < BOUNDS_MS[path])
    for what in untrue + frozen:
        print(f"# {name}: on the page although it cannot be known: {what}", flush=True)
    report.line(f"{name}_untrue_series", len(untrue) + len(frozen), "series", not untrue + frozen)
    report.line(f"{name}_rss_growth_mb", held.rss - first.rss, "MB", held.rss - first.rss < RSS_GROWTH_MB)
    for what, unit in (("threads", "threads"), ("fds", "files")):
        had = max(getattr(before, what), getattr(first, what))  # a child that is just being replaced holds none
        grown = getattr(held, what) - had
        report.line(f"{name}_{what}_growth", grown, unit, grown <= 0)
    report.line(f"{name}_children", held.children, "processes", held.children <= 2)
    report.line(f"{name}_rss_left_mb", after.rss - before.rss, "MB")
    if not failure.first:
        left = max(after.threads - before.threads, after.fds - before.fds)
        report.line(f"{name}_threads_and_fds_left", left, "handles", left <= 0)
    report.line(f"{name}_recovered", bool(over), "bool", bool(over))
    report.line(f"{name}_recovered_after_s", recovered, "s")


def _frozen(node: Node) -> list[str]:
    """GPUs whose energy stands still over three sweeps: nobody has read it."""
    pages = []
    for _ in range(3):
        pages.append(node.page().gpus(ENERGY))
        time.sleep(3.0)
    return [f"energy of GPU {gpu} stands still" for gpu in pages[0] if len({page.get(gpu) for page in pages}) == 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each failure lasts at least, once named")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of them come")
    parser.add_argument("--only", action="append", choices=[each.name for each in FAILURES], help="only these")
    args = parser.parse_args()
    report = Report()
    chosen = [each for each in FAILURES if not args.only or each.name in args.only]
    with tempfile.TemporaryDirectory(prefix="bench-badday-") as name:
        node = Node(Path(name))
        try:
            if not any(each.first for each in chosen):
                node.start()
                node.see(healthy)
            for failure in [one for _ in range(args.rounds) for one in chosen if node.process is None or not one.first]:
                if failure.needs_root and not ROOT:
                    print(f"# {failure.name}: needs root and /dev/fuse, left out", flush=True)
                    continue
                live_through(node, failure, args.seconds, report)
        finally:
            node.close()
    report.line("all_bounds_held", report.good, "bool")
    return 0 if report.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
