"""Training ETA: reads the agents' progress metrics, estimates each job's end, compares it with the plan."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from agent.base.catalogue import Metric, train
from agent.base.catalogue.central import TRAIN_DEVIATION, TRAIN_ETA, TRAIN_FINISH
from agent.base.log import OnChange
from alerts.central.monitor import View
from alerts.central.page import Line
from alerts.central.promread import Labels, Reader, ReadError
from alerts.central.settings import Training
from alerts.detect.eta import SETTLED, Eta, estimate, step_seconds

NAME = "training-eta"
"""The monitor's name in gpuvigil_monitor_state and in the API."""
DROPPED = ("job", "instance", "source", "synthetic")
"""Labels that are no part of a job's identity."""
KEEP = 20_000
"""Records kept of one job."""


@dataclass(slots=True)
class Job:
    """A job's records (wall time, step), in order, and what is known of its plan."""

    times: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    learned: float | None = None
    """Total seconds expected when the pace had settled: the plan where none is configured."""

    def add(self, at: float, step: float) -> None:
        """A record, unless it is already known."""
        if not self.times or at > self.times[-1]:
            self.times.append(at)
            self.steps.append(step)
            if len(self.times) > KEEP:
                del self.times[: KEEP // 2], self.steps[: KEEP // 2]


class TrainingWatch:
    """All jobs that report progress. As `Watch`: `turn` by the scheduler, `view` by anybody."""

    def __init__(self, settings: Training, reader: Reader, *, clock: Callable[[], float] = time.time) -> None:
        self.view = View()
        self._settings = settings
        self._reader = reader
        self._clock = clock
        self._jobs: dict[Labels, Job] = {}
        self._seen: int | None = None
        self._error = OnChange(logging.getLogger(__name__))
        self._lock = threading.Lock()

    def turn(self) -> str:
        """Read new records and estimate; returns the outcome."""
        with self._lock:
            begin, now = time.monotonic(), self._clock()
            outcome = "ok"
            try:
                self._read(now)
                view = self._decide(now)
                self._error.good("reading again", monitor=NAME)
            except ReadError as error:
                outcome = error.reason
                self._error.bad(str(error), monitor=NAME)
                view = View("stale", str(error), len(self._jobs))
            view.duration = time.monotonic() - begin
            view.last_run = now if outcome == "ok" else self.view.last_run
            self.view = view
            return outcome

    def _query(self, name: str) -> str:
        return f"{name}{{{self._settings.selector}}}"

    def _read(self, now: float) -> None:
        """Add what is new since the last turn: step and its own time, from the same scrape."""
        step = self._settings.step
        last = math.floor(now / step)
        first = last - math.floor(self._settings.history / step)
        if self._seen is not None:
            first = max(first, self._seen - 1)
        whens: dict[Labels, dict[int, float]] = {}
        reached: dict[Labels, dict[int, float]] = {}
        for metric, into in ((train.LAST_STEP_TIME, whens), (train.STEP, reached)):
            for chunk in self._reader.range(self._query(metric.name), first, last, step, 100):
                for series in chunk:
                    points = into.setdefault(_identity(series.labels), {})
                    points.update(zip(series.rows.tolist(), series.values.tolist(), strict=True))
        for key, points in whens.items():
            job = self._jobs.setdefault(key, Job())
            steps = reached.get(key, {})
            for row in sorted(points):
                if row in steps and not math.isnan(points[row]) and not math.isnan(steps[row]):
                    job.add(points[row], steps[row])
        self._seen = last

    def _now(self, metric: Metric, now: float) -> dict[Labels, float]:
        return {_identity(labels): value for labels, value in self._reader.instant(self._query(metric.name), now)}

    def _decide(self, now: float) -> View:
        totals = self._now(train.STEPS_PLANNED, now)
        plans = self._now(train.PLANNED_SECONDS, now)
        starts = self._now(train.STARTED, now)
        steps = self._now(train.STEP, now)
        for key in [key for key in self._jobs if key not in steps]:
            del self._jobs[key]  # the job or its agent is gone, and so is its estimate
        lines: list[Line] = []
        waiting = 0
        for key, job in self._jobs.items():
            times, counts = np.array(job.times), np.array(job.steps)
            eta = estimate(times, counts, totals[key], now) if key in totals else None
            if eta is None:
                waiting += 1
                continue
            started = starts.get(key, job.times[0])
            lines += self._lines(key, job, eta, started, plans.get(key), now)
        view = View("ok", f"{len(self._jobs)} jobs", len(self._jobs), lines=lines)
        if not self._jobs:
            view.state, view.why = "no_data", "no job reports progress"
        elif waiting == len(self._jobs):
            most = max(len(step_seconds(np.array(j.times), np.array(j.steps))) for j in self._jobs.values())
            view.state = "warming_up"
            view.why = f"{most} of {SETTLED} records" if totals else "no job says how many steps it will make"
        return view

    def _lines(self, key: Labels, job: Job, eta: Eta, started: float, plan: float | None, now: float) -> list[Line]:
        own = dict(key)
        found = [Line(TRAIN_FINISH, own, eta.finish), Line(TRAIN_ETA, own, max(eta.finish - now, 0.0))]
        source = "configured" if plan else "learned"
        if not plan:
            job.learned = job.learned or eta.finish - started
            plan = job.learned
        if plan > 0:
            for bound, finish in (("expected", eta.finish), ("low", eta.low), ("high", eta.high)):
                labels = own | {"bound": bound, "plan": source}
                found.append(Line(TRAIN_DEVIATION, labels, (finish - started) / plan - 1.0))
        return found


def _identity(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in DROPPED)
