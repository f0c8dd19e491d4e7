"""An hour without Prometheus, on a clock of the test's own: a real one is stopped, and started again on its store."""

import shutil
import subprocess
import time
from collections import Counter

import numpy as np
import pytest

from alerts.central.fitting import Fits
from alerts.central.history import Bounds
from alerts.central.monitor import Watch
from alerts.central.pool import Pool
from alerts.central.promread import Reader
from alerts.central.settings import Monitor, Prometheus
from bench.harness.processes import eventually, free_port, get, running

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not shutil.which("promtool"), reason="prometheus is not installed")]

STEP = 60
HOUR = 60
BEFORE = 8 * HOUR
"""Rows of history before the hour."""
KEPT, LOST = (("engine", "kept"),), (("engine", "lost"),)


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A Prometheus' folder, and the moment at which the hour begins.

    The series `kept` has points of that hour when Prometheus is back, `lost` has none.
    """
    folder = tmp_path_factory.mktemp("past")
    begin = int(time.time()) // STEP * STEP - 3 * 3600
    rng = np.random.default_rng(3)
    lines = ["# TYPE load gauge\n"]
    for engine in ("kept", "lost"):
        for row in range(-BEFORE, 2 * HOUR):
            value = 50 + 10 * np.sin(row / 40) + rng.normal()
            if engine == "kept" or not 0 < row <= HOUR:
                lines.append(f'load{{engine="{engine}"}} {value:.4f} {begin + row * STEP}\n')
    (folder / "load.om").write_text("".join(lines) + "# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"]
    subprocess.run([*command, folder / "load.om", folder / "tsdb"], check=True, capture_output=True, timeout=120)
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    return folder, begin


class Watched:
    """A monitor on a clock that the test moves, what its turns ended with, and every score in order."""

    def __init__(self, model, port, pool, now):
        settings = Monitor.model_validate(
            {"name": "m", "query": "load", "model": model, "step": f"{STEP}s", "fit_window": "8h", "fit_every": "1d",
             "min_history": "2h", "min_dev_abs": 20}
        )  # fmt: skip
        self.reads, self.outcomes, self.now = Counter(), Counter(), now
        self.rows = []
        reader = Reader(
            Prometheus(url=f"http://127.0.0.1:{port}", timeout="10s"),
            lambda seconds, outcome: self.reads.update([outcome]),
        )
        self.watch = Watch(settings, reader, Fits(settings, pool), Bounds(), clock=lambda: self.now)
        judge = self.watch._judge

        def noting(forecast, first, values):
            bands, scores = judge(forecast, first, values)
            self.rows += [(first + i, key, score) for i, row in enumerate(scores.tolist())
                          for key, score in zip(forecast.keys, row, strict=True) if score == score]  # fmt: skip
            return bands, scores

        self.watch._judge = noting

    def turn(self, seconds=0.0):
        self.now += seconds
        self.outcomes[self.watch.turn()] += 1

    def scores(self, key):
        return [(row, score) for row, of, score in self.rows if of == key]


@pytest.mark.parametrize("model", ["ewma", "robust", "prophet_batched"])
def test_an_hour_without_prometheus_is_named_counted_and_scored_afterwards_in_order(past, tmp_path, model):
    folder, begin = past
    port, log = free_port(), tmp_path / "log"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=60d",
        # no stale value may stand in for a missing one
        "--query.lookback-delta=30s",
    ]

    def ready():
        return get(f"http://127.0.0.1:{port}/-/ready")

    pool = Pool(1)
    try:
        with running(command, log):
            eventually(ready)
            watched, steady = (Watched(model, port, pool, float(begin)) for _ in range(2))
            for each in (watched, steady):
                each.turn()
                eventually(lambda each=each: each.turn() or each.watch.view.state == "ok")
        # Prometheus is dead: 60 turns say so, and show nothing
        before = watched.watch.scored
        for _ in range(HOUR):
            watched.turn(STEP)
            assert (watched.watch.view.state, watched.watch.view.found) == ("stale", {})
        assert "refused" in watched.watch.view.why
        assert watched.outcomes["refused"] == HOUR
        assert watched.reads["refused"] == HOUR
        assert watched.watch.scored == before

        with running(command, log):
            eventually(ready)
            for _ in range(HOUR):  # the same hour for one that never missed Prometheus
                steady.turn(STEP)
            for _ in range(5):
                watched.turn(STEP)
                steady.turn(STEP)
            assert watched.watch.view.state == "ok"
    finally:
        pool.close()
    first = begin // STEP
    for each in (watched, steady):
        rows = [row for row, _ in each.scores(KEPT)]
        assert rows == list(range(rows[0], first + HOUR + 6)), "in order, none lost, none twice"
        missed = [row for row, _ in each.scores(LOST) if first < row <= first + HOUR]
        assert not missed, "what nobody measured has no score"
    for key in (KEPT, LOST):
        mine, theirs = dict(watched.scores(key)), dict(steady.scores(key))
        assert mine == pytest.approx(theirs)
        assert max(mine.values()) < 1.5, "an absence is no anomaly"
