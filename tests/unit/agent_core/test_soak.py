"""A day of the agent's core, accelerated: nothing piles up."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from agent.base.collector import Settings
from agent.base.exposition import OPENMETRICS, TEXT
from agent.runner import Runner


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def a_time(metric, puppet, context, seconds, mark):
    """Let `seconds` pass at a tick of 1 s, scraped every 15 s in both formats; memory after `mark` and at the end."""
    now = [0.0]
    turn = iter(range(10**9))

    def busy():  # identities that stay, values that change, and a few series that come and go
        run = next(turn)
        for n in range(300):
            yield metric.gauge.sample(run + n / 7, str(n), "stays")
        for n in range(20):
            yield metric.counter.sample(run, f"pid {run * 20 + n}")

    def flaky():
        if next(turn) % 3 == 0:
            raise OSError("now and then")
        return [metric.plain.sample(next(turn))]

    made = {name: puppet(name, script) for name, script in (("busy", busy), ("flaky", flaky))}
    runner = Runner(
        {name: kind for name, (kind, _) in made.items()}, context, monotonic=lambda: now[0], wall=lambda: 1e9 + now[0]
    )
    runner.configure({name: Settings(period="15s") for name in made}, start=False)
    memory = []
    for second in range(seconds):
        now[0] = float(second)
        if second % 15 == 0:
            for worker in runner.workers.values():
                worker.step()
        snapshot = runner.snapshot()
        if second % 15 == 7:
            for form in (TEXT, OPENMETRICS):
                assert snapshot.page(form, gzip=True)
        if second in (mark, seconds - 1):
            gc.collect()
            memory.append(resident_mb())
    return memory


def test_half_an_hour(metric, puppet, context):
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    before, after = a_time(metric, puppet, context, 1800, 900)
    assert after - before < 4
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.slow
def test_a_day(metric, puppet, context):
    before, after = a_time(metric, puppet, context, 86_400, 3600)
    assert after - before < 4
