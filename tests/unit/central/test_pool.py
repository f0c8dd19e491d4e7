"""Workers that die or hang take nothing with them for good."""

import os
import signal
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from alerts.central.fitting import Fits
from alerts.central.monitor import Watch
from alerts.central.pool import ONE_THREAD, Pool
from alerts.central.settings import Monitor


@pytest.fixture
def pool():
    pool = Pool(1)
    yield pool
    pool.close()


def test_numerical_libraries_have_one_thread_in_a_worker(pool):
    assert pool.submit(os.getenv, ONE_THREAD[0]).result(60) == "1"


def test_a_killed_worker_fails_its_task_and_the_next_is_done_once(pool):
    worker = pool.submit(os.getpid).result(60)
    assert worker != os.getpid()
    task = pool.submit(time.sleep, 600)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        task.result(60)
    assert pool.submit(abs, -7).result(60) == 7
    assert pool.replaced == 1


def test_a_worker_that_hangs_is_ended(pool):
    worker = pool.submit(os.getpid).result(60)
    task = pool.submit(time.sleep, 600)
    pool.restart()
    with pytest.raises((BrokenProcessPool, CancelledError)):
        task.result(60)
    assert pool.submit(abs, -7).result(60) == 7
    limit = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < limit:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def test_a_fit_past_its_deadline_is_named_and_the_workers_are_restarted(prometheus, pool):
    prometheus.series = {(("a", "1"),): lambda t: float(t % 7)}
    settings = Monitor.model_validate(
        {"name": "m", "query": "x", "step": "10s", "fit_window": "1000s", "min_history": "0s", "fit_every": "60s"}
    )
    restarts, now = [], [10_000.0]

    class Hanging:
        replaced = 0
        submit = staticmethod(lambda work, *args: pool.submit(time.sleep, 600))
        restart = staticmethod(lambda: restarts.append(1))

    watch = Watch(settings, prometheus.reader(), Fits(settings, Hanging(), deadline=0.05), clock=lambda: now[0])
    watch.turn()
    time.sleep(0.1)
    now[0] += 10
    watch.turn()
    assert restarts == [1]
    assert watch.view.state == "error"
    assert "longer than" in watch.view.why


def test_the_end_of_a_first_fit_is_told_at_once_and_its_time_is_the_fits_own(prometheus):
    prometheus.series = {(("a", "1"),): lambda t: float(t % 7)}
    settings = Monitor.model_validate(
        {
            "name": "m",
            "query": "x",
            "step": "10s",
            "fit_window": "1000s",
            "min_history": "0s",
            "fit_every": "60s",
            "model": "prophet_batched",
        }
    )
    now, futures, told, seen = [10_000.0], [], [], []

    class Slow:
        replaced = 0

        def submit(self, work, *args):
            futures.append((Future(), work, args))
            return futures[-1][0]

    fits = Fits(settings, Slow(), ready=told.append, observe=lambda name, seconds, outcome: seen.append(seconds))
    watch = Watch(settings, prometheus.reader(), fits, clock=lambda: now[0])
    before = time.monotonic()
    watch.turn()
    future, work, args = futures[0]
    assert told == []
    future.set_result(work(*args))
    ended = time.monotonic()
    assert told == ["m"], "it need not wait for the next turn"
    time.sleep(0.1)
    now[0] += 200
    watch.turn()
    assert watch.view.state != "warming_up"
    assert seen[0] <= ended - before
    futures[1][0].set_result(work(*args))
    assert told == ["m"], "later fits are taken in their turn"
