"""The clock of the service: scattered, one run at a time, late rather than never, and its death is noticed."""

import threading
import time
from collections import Counter
from datetime import datetime as real_datetime
from datetime import timedelta
from functools import partial

import pytest

from agent.base.exposition import TEXT
from agent.base.web import Request
from alerts.central import service
from alerts.central.schedule import Clock, share
from alerts.central.serve import routes
from alerts.central.service import Central
from alerts.central.settings import Settings


def eventually(what, limit=60.0):
    end = time.monotonic() + limit
    while not what():
        assert time.monotonic() < end, f"did not come true within {limit:g} s"
        time.sleep(0.02)


@pytest.fixture
def missed():
    return Counter()


@pytest.fixture
def clock(missed):
    clock = Clock(2, lambda name, reason: missed.update([reason]))
    yield clock
    clock.stop()


def test_jobs_are_scattered_by_their_names_alone():
    places = [share(f"monitor-{n}") for n in range(200)]
    assert places == [share(f"monitor-{n}") for n in range(200)]
    assert all(sum(low <= place < low + 0.25 for place in places) > 25 for low in (0, 0.25, 0.5, 0.75))


def test_a_job_that_takes_longer_than_its_period_never_runs_twice_at_once_and_what_is_left_out_is_counted(
    clock, missed
):
    inside, most, runs = [], [], []

    def slow():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.5)
        runs.append(1)
        inside.pop()

    clock.every("slow", 0.1, slow)
    clock.start()
    eventually(lambda: len(runs) >= 3)
    assert max(most) == 1
    assert missed["still_running"]


def test_runs_that_wait_for_a_thread_come_late_and_do_not_drop_out(clock, missed):
    """APScheduler's default drops what begins a second late: here eight jobs wait for two threads."""
    done = Counter()
    for number in range(8):
        clock.every(f"job{number}", 30.0, lambda number=number: (time.sleep(0.6), done.update([number])), soon=True)
    clock.start()
    for job in clock._scheduler.get_jobs():
        if job.id != "beat":
            job.modify(next_run_time=real_datetime.now(job.next_run_time.tzinfo))
    eventually(lambda: len(done) == 8)
    assert not missed["missed"]


def test_a_job_that_fails_is_counted_and_comes_again(clock, missed):
    clock.every("bad", 0.1, lambda: 1 / 0)
    clock.start()
    eventually(lambda: missed["error"] >= 2)


def test_a_job_may_be_asked_to_run_before_its_period_is_over(clock):
    runs = []
    clock.every("hourly", 3600.0, lambda: runs.append(1), soon=False)
    clock.start()
    clock.soon("hourly")
    clock.soon("gone")
    eventually(lambda: runs)


@pytest.fixture
def moved(monkeypatch):
    """The machine's clock: `moved[0]` seconds ahead of the real one."""
    by = [0.0]

    class Datetime(real_datetime):
        @classmethod
        def now(cls, tz=None):
            return real_datetime.now(tz) + timedelta(seconds=by[0])

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Datetime)
    monkeypatch.setattr("apscheduler.executors.base.datetime", Datetime)
    monkeypatch.setattr("alerts.central.schedule.datetime", Datetime)
    real = time.time
    monkeypatch.setattr("alerts.central.schedule.time.time", lambda: real() + by[0])
    return by


def test_a_clock_set_back_by_an_hour_does_not_stop_the_jobs_for_an_hour(clock, moved):
    runs = []
    clock.every("job", 0.1, lambda: runs.append(1))
    clock.start()
    eventually(lambda: len(runs) >= 2)
    moved[0] = -3600.0
    clock.follow()
    before = len(runs)
    eventually(lambda: len(runs) >= before + 5)
    eventually(lambda: clock.silent_for < 5)


def test_a_clock_set_ahead_by_an_hour_runs_each_job_once_for_all_it_missed(clock, moved):
    runs = []
    clock.every("job", 60.0, lambda: runs.append(1))
    clock.start()
    eventually(lambda: len(runs) == 1, 30)
    moved[0] = 3600.0
    clock.follow()
    eventually(lambda: len(runs) == 2)
    assert len(runs) == 2


@pytest.fixture
def central(tmp_path):
    central = Central(Settings.model_validate({"state_dir": str(tmp_path), "presets": []}))
    central.start()
    yield central
    central.stop()


def test_a_dead_scheduler_is_seen_in_healthz_and_in_the_gauge(central, monkeypatch):
    """An error of the job store kills APScheduler's thread, while `running` stays true."""
    health = partial(routes(central).begin, Request("GET", "/healthz"))
    assert health().status == 200
    assert b"gpuvigil_central_scheduler_alive 1.0\n" in central.page(TEXT)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # it is meant to die
    scheduler = central.clock._scheduler
    monkeypatch.setattr(scheduler._jobstores["default"], "update_job", lambda job: 1 / 0)
    eventually(lambda: not scheduler._thread.is_alive())
    assert scheduler.running
    monkeypatch.setattr(service, "DEAD_AFTER", 0.0)  # 30 s later
    answer = health()
    assert answer.status == 503
    assert b"silent for" in answer.body
    assert b"gpuvigil_central_scheduler_alive 0.0\n" in central.page(TEXT)
