"""Whole days of the agent in minutes: all its clocks run faster, and nothing it holds may grow.

The real process and its NVML child on the simulator, with all collectors, live at `--speed` times the usual pace (every
clock and every wait of theirs, see bench/harness/warp.c), are scraped every 15 s of their time in either format, and
see what days bring: Xids, ECC errors, kernel messages, a lost GPU, the driver reloaded, a new training run.
Prints `name value unit` lines; exit code 1 where something grew from the first part of the run (`--settle`) to its end,
where the pages lost a GPU with which nothing was wrong, or where a child was replaced that did not hang.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: `agent` would be the file there

from agent.settings import kinds
from bench.harness.failures import POWER, healthy
from bench.harness.node import LAST_STEP, Node, Page, Usage

DAY = 86_400.0
SCRAPE = 15.0
HAPPENS = 900.0
"""Seconds of the agent's time from one event to the next."""
LASTS = 60.0
RECOVERS = 240.0
"""Seconds after which all is known again, at most: a child's start is put off by up to 30 s, a lost GPU by 30 s."""
ACCEPTS = ("text/plain", "application/openmetrics-text;version=1.0.0")
RSS_GROWTH_MB = 3.0
SERIES_GROWTH = 64
"""Two for every GPU and code of Xid that is seen for the first time."""
STATE_GROWTH_BYTES = 4096
XID_BYTES = 1024
"""An Xid is kept with its line and what else is known of it; the last 512 are."""
BLIND_MOST = 2
"""Pages in a row without a GPU's values: half a second in which this machine had no time for a sweep."""
DEADLINE = "120s"
PATIENT = {
    **{name: {"deadline": DEADLINE} for name in kinds()},
    "gpu": {
        "interval": "10s",
        "period": "5s",
        "retry_lost": "30s",
        "deadline": DEADLINE,
        "call_deadline": DEADLINE,
        "open_deadline": DEADLINE,
    },
}
"""What the machine computes takes it no shorter: a run of 0.2 s, or a hiccup as long, is 12 s to an agent at a pace of
60. It is no hung driver, no late collector, and a sweep of the GPUs every second would be 60 in one of ours."""


class Days:
    """What happens on the node, one thing after the other."""

    def __init__(self, node: Node) -> None:
        self._node, self._dice, self._step = node, random.Random(1), 30
        self.seen: dict[str, int] = {}
        self._over = 0.0
        self._next = 0.0
        self._well_from = 0.0

    def well(self, now: float) -> bool:
        """Nothing is wrong with any GPU, and has not been for some time."""
        return not self._over and now >= self._well_from

    def go_on(self, now: float) -> None:
        """Begin or end what is due at `now`, seconds of the agent's time."""
        if self._over and now >= self._over:
            self._node.world.clear()
            self._over, self._well_from = 0.0, now + RECOVERS
        self._train()
        if now >= self._next:
            self._next = now + HAPPENS
            kind = self._dice.choice(("xid", "gpu_lost", "driver_unloaded", "ecc_corrected", "kernel", "run"))
            self.seen[kind] = self.seen.get(kind, 0) + 1
            gpu = self._dice.randrange(self._node.gpus)
            if kind == "xid":
                self._node.world.set("xid", gpu=gpu, code=self._dice.choice((13, 31, 43, 94)), kmsg=self._node.kmsg)
            elif kind == "kernel":
                with self._node.kmsg.open("a") as log:
                    log.writelines(f"6,{n},{n},-;eth0: link {n} is up\n" for n in range(1000))
            elif kind == "run":
                self._step = 1
            else:
                self._node.world.set(kind, gpu=None if kind == "driver_unloaded" else gpu)
                self._over = now + LASTS

    def _train(self) -> None:
        with self._node.training_log.open("a") as log:
            log.write(f"step:{self._step}/{LAST_STEP} train_loss:2.{self._step} train_time:9ms step_avg:1ms\n")
        self._step = self._step % LAST_STEP + 1


def held(usages: list[Usage], name: str) -> float:
    return median(getattr(usage, name) for usage in usages)


def lasting(usages: list[Usage], name: str) -> float:
    """What was held in nine moments of ten: a thread or file that comes and goes is no growth.

    Nor is the moment in which a child is replaced, and one file fewer is held, what the others are compared with.
    """
    return quantiles((getattr(usage, name) for usage in usages), n=10, method="inclusive")[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long this takes")
    parser.add_argument("--hours", type=float, help="hours of the agent's life, instead of --minutes")
    parser.add_argument("--speed", type=float, default=60.0, help="seconds of the agent's time in one of ours")
    parser.add_argument("--settle", type=float, default=0.25, help="share of the run that comes before the comparison")
    parser.add_argument("--gpus", type=int, default=8)
    args = parser.parse_args()
    life = args.hours * 3600 if args.hours else args.minutes * 60 * args.speed
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as name:
        node = Node(Path(name), gpus=args.gpus, speed=args.speed, collectors=PATIENT)
        try:
            node.start()
            node.see(lambda page: healthy(page, args.gpus))
            return soak(node, life, args.speed, args.settle)
        finally:
            node.close()


def soak(node: Node, life: float, speed: float, settle: float) -> int:
    days, usages, states, sizes, scrapes, dropped, blind = Days(node), [node.usage()], [], [], 0, 0, [0]
    began, due = time.monotonic(), 0.0
    while (now := (time.monotonic() - began) * speed) < life:
        days.go_on(now)
        page = None
        try:
            _, body = node.ask("/metrics", ACCEPTS[scrapes % 2])
            page = Page(body.decode()) if scrapes % 100 == 0 else None
            scrapes += 1
            sizes.append(sum(not line.startswith(b"#") for line in body.splitlines()))
            if body.count(b"\n%s{" % POWER.encode()) >= node.gpus:
                blind.append(0)
            elif days.well(now):
                blind[-1] += 1
                print(f"# {now / 3600:5.2f} h: a GPU without values; {node.said().splitlines()[-3:]}", flush=True)
        except OSError:  # at this pace the limit of 10 s for a request is a moment of ours
            dropped += 1
        usages.append(node.usage())
        states.append(node.state_bytes())
        if page is not None:
            print(f"# {now / 3600:5.1f} h: {len(page)} series, {usages[-1]}, state {states[-1]} bytes", flush=True)
        due = max(due + SCRAPE, now)
        time.sleep(max(0.0, due - now) / speed)
    node.world.clear()
    node.see(lambda page: healthy(page, node.gpus))
    page = node.page()
    part = int(len(usages) * settle)
    early, late = usages[part : 2 * part], usages[-part:]
    print(f"# happened: {days.seen}", flush=True)
    good = True

    def line(name: str, value: float, unit: str, most: float | None = None) -> None:
        nonlocal good
        broken = most is not None and value > most
        good &= not broken
        print(f"{name} {value:.4g} {unit}{'   BROKEN' if broken else ''}", flush=True)

    line("soak_hours", life / 3600, "hours")
    line("soak_scrapes", scrapes, "scrapes")
    line("soak_scrapes_dropped", dropped, "scrapes")
    line("soak_scrapes_without_gpu_values", sum(blind), "scrapes")
    line("soak_scrapes_without_gpu_values_in_a_row", max(blind), "scrapes", BLIND_MOST)
    line("soak_series_growth", median(sizes[-part:]) - median(sizes[part : 2 * part]), "series", SERIES_GROWTH)
    reloads = days.seen.get("driver_unloaded", 0)  # a child more would be one whose waiting was taken for a hang
    line("soak_child_restarts", page.value("gpuvigil_gpu_child_restarts_total") or 0.0, "processes", reloads)
    line("soak_rss_mb", held(late, "rss"), "MB")
    line("soak_rss_growth_mb", held(late, "rss") - held(early, "rss"), "MB", RSS_GROWTH_MB)
    grown = held(late, "children_rss") - held(early, "children_rss")
    line("soak_children_rss_growth_mb", grown, "MB", RSS_GROWTH_MB)
    line("soak_threads_growth", lasting(late, "threads") - lasting(early, "threads"), "threads", 0)
    line("soak_fds_growth", lasting(late, "fds") - lasting(early, "fds"), "files", 0)
    line("soak_children_most", max(usage.children for usage in usages), "processes", 2)
    most = STATE_GROWTH_BYTES + XID_BYTES * days.seen.get("xid", 0)
    line("soak_state_growth_bytes", median(states[-part:]) - median(states[part : 2 * part]), "bytes", most)
    line("soak_state_bytes", states[-1], "bytes")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
