"""Central with its workers on a real Dask scheduler: they read Prometheus themselves, die, and nothing is lost."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError
from functools import partial

import numpy as np
import pytest

from alerts.central.dask_pool import DaskPool, SchedulerAway
from alerts.central.fitting import Fits, Source, learn
from alerts.central.history import Bounds
from alerts.central.monitor import Watch
from alerts.central.promread import Reader, ReadError
from alerts.central.settings import Monitor, Prometheus
from bench.harness.processes import eventually, free_port, get, running

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")]


def slow_square(number, seconds, log):
    """A task that leaves a line in `log` when it is begun."""
    with open(log, "a") as file:
        file.write(f"{number} {os.getpid()}\n")
    time.sleep(seconds)
    return number * number


class Cluster:
    """A scheduler and two worker processes, each a process of its own, as an operator starts them."""

    def __init__(self, folder):
        self.port, self.folder = free_port(), folder
        self.address = f"127.0.0.1:{self.port}"
        self.processes = {}
        self.scheduler()
        for name in ("w1", "w2"):
            self.worker(name)

    def scheduler(self):
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")

    def worker(self, name):
        self._start(
            name, "worker", f"tcp://{self.address}", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name,
            "--host", "127.0.0.1",
        )  # fmt: skip

    def _start(self, name, *command):
        environ = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command], stdout=log, stderr=log, env=environ, cwd=self.folder
            )

    def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def two_workers(self, pool):
        """Begin another worker for each that was killed; returns the name of one."""
        for name in ("w1", "w2"):
            if name not in self.processes or self.processes[name].poll() is not None:
                self.worker(name)

        def both_there():
            with contextlib.suppress(SchedulerAway, CancelledError):
                pool.submit(abs, -1).result(30)
                return len(pool._client.nthreads()) == 2

        eventually(both_there)
        return "w1"

    def close(self):
        for name in tuple(self.processes):  # no grace: one may be in a task of a minute
            self.kill(name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def shared(cluster):
    pool = DaskPool(f"dask://{cluster.address}")
    yield pool
    pool.close()


@pytest.fixture
def pool(cluster, shared):
    cluster.two_workers(shared)
    return shared


@pytest.fixture
def history(tmp_path):
    """A real Prometheus with 320 series of 14 days; its address and the time of the newest row."""
    end = int(time.time()) // 600 * 600 - 600
    rng = np.random.default_rng(1)
    day = 10 * np.sin(np.arange(14 * 144 + 1) / 144 * 2 * np.pi)
    with open(tmp_path / "load.om", "w") as file:
        file.write("# TYPE load gauge\n")
        for m in range(8):
            for n in range(40):
                values = (50 + n + day + rng.normal(size=len(day))).round(3).tolist()
                first = end - 600 * (len(values) - 1)
                file.writelines(f'load{{m="{m}",n="{n}"}} {v} {first + 600 * i}\n' for i, v in enumerate(values))
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"]
    subprocess.run([*command, tmp_path / "load.om", tmp_path / "tsdb"], check=True, capture_output=True)
    (tmp_path / "p.yml").write_text("scrape_configs: []\n")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'p.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=90d",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, tmp_path / "prometheus.log"):
        eventually(lambda: get(f"{url}/-/ready"))
        yield url, end - 600


def test_a_worker_killed_in_the_middle_of_a_batch_loses_and_doubles_nothing(cluster, pool, tmp_path):
    log = tmp_path / "begun"
    futures = {number: pool.submit(slow_square, number, 0.4, str(log)) for number in range(12)}
    arrived = []
    for number, future in futures.items():
        future.add_done_callback(lambda _, number=number: arrived.append(number))
    victim = cluster.processes["w1"].pid
    eventually(lambda: log.exists() and any(line.endswith(f" {victim}") for line in log.read_text().splitlines()))
    cluster.kill("w1")
    results = {number: future.result(60) for number, future in futures.items()}
    assert results == {number: number * number for number in range(12)}
    assert sorted(arrived) == list(range(12)), "each result came once"
    begun = [int(line.split()[0]) for line in log.read_text().splitlines()]
    assert set(begun) == set(range(12))
    assert len(begun) > 12, "what the dead worker had in hand was begun again by the other"


def test_monitors_are_fitted_once_each_by_workers_that_read_prometheus_though_one_is_killed(cluster, pool, history):
    """Eight monitors of 40 series, 14 days each; the killed worker is in the middle of a fit."""
    url, end = history
    prometheus = Prometheus(url=url, timeout="60s")
    reader, outcomes, watches = Reader(prometheus), Counter(), []
    now = [float(end)]
    for number in range(8):
        settings = Monitor.model_validate(
            {"name": f"m{number}", "query": f'load{{m="{number}"}}', "model": "prophet_batched", "step": "10m",
             "fit_window": "14d", "fit_every": "6h", "min_history": "2d"}
        )  # fmt: skip
        fits = Fits(settings, pool, observe=lambda name, seconds, outcome: outcomes.update([(name, outcome)]))
        source = partial(Source, prometheus, Bounds())
        watches.append(Watch(settings, reader, fits, source=source, clock=lambda: now[0]))
    for watch in watches:
        watch.turn()
    victim = cluster.processes["w1"]
    eventually(lambda: not all(watch.fits.under_way for watch in watches), every=0.1)
    assert any(watch.fits.under_way for watch in watches), "the batch is not over yet"
    cluster.kill("w1")
    eventually(lambda: not any(watch.fits.under_way for watch in watches))
    now[0] += 600
    for watch in watches:
        watch.turn()
    assert victim.poll() is not None
    assert {watch.name: watch.view.state for watch in watches} == {f"m{number}": "ok" for number in range(8)}
    assert outcomes == {(f"m{number}", "ok"): 1 for number in range(8)}
    assert all(watch.view.series == watch.scored == 40 for watch in watches)
    whole = 8 * 40 * 14 * 144
    assert reader.tally.samples < whole / 8, "the history was read by the workers, not here"


def test_a_worker_that_cannot_read_says_why(pool):
    settings = Monitor.model_validate({"name": "m", "query": "x", "step": "10s", "fit_window": "1h", "min_history": 0})
    refused = pool.submit(learn, settings, (), Source(Prometheus(url="http://127.0.0.1:1"), Bounds(), 1e9))
    error = refused.exception(60)
    assert isinstance(error, ReadError)
    assert error.reason == "refused"


def test_a_scheduler_that_is_away_is_named_at_once_and_its_return_is_noticed(cluster, pool, tmp_path, monkeypatch):
    monkeypatch.setattr("alerts.central.dask_pool.CONNECT", 1.0)
    under_way = pool.submit(slow_square, 3, 60, str(tmp_path / "begun"))
    cluster.kill("scheduler")
    with pytest.raises(CancelledError):
        under_way.result(30)
    eventually(lambda: isinstance(pool.submit(abs, -1).exception(30), SchedulerAway))
    failed = pool.submit(abs, -1)
    assert failed.done(), "turns do not queue up behind a dead scheduler"
    assert f"no Dask scheduler answers at tcp://{cluster.address}" in str(failed.exception())
    monkeypatch.setattr("alerts.central.dask_pool.AGAIN", 0.5)
    cluster.scheduler()
    eventually(lambda: "has no worker" in str(pool.submit(abs, -1).exception(30)))
    cluster.two_workers(pool)
    assert pool.submit(abs, -7).result(60) == 7
