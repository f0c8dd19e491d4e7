"""Training ETA: reads the agents' progress metrics, estimates each job's end, compares it with the plan."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.base.catalogue import Metric, train
from agent.base.catalogue.central import TRAIN_DEVIATION, TRAIN_ETA, TRAIN_FINISH, TRAIN_PACE
from alerts.central.history import Bounds
from alerts.central.page import Line, families
from alerts.central.promread import Labels, Reader
from alerts.central.settings import Training
from alerts.central.watching import View, Watching
from alerts.detect.eta import SETTLED, Schedule, Track
from alerts.detect.lateness import Lateness

NAME = "training-eta"
"""The monitor's name in gpuvigil_monitor_state and in the API."""
DROPPED = ("job", "instance", "source", "synthetic")
"""Labels that are no part of a job's identity."""


@dataclass(slots=True)
class Job:
    """A job's track, when its last record was, and the judge of its lateness."""

    track: Track
    last: float = 0.0
    lateness: Lateness = field(default_factory=Lateness)


class TrainingWatch(Watching):
    """All jobs that report progress."""

    kind = "training"

    def __init__(
        self,
        settings: Training,
        reader: Reader,
        bounds: Bounds | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(NAME, clock)
        self._settings = settings
        self._reader = reader
        self._shard = (bounds or Bounds()).shard
        self._jobs: dict[Labels, Job] = {}
        self._seen: int | None = None
        self._schedules = {job.job_id: Schedule(job.schedule) for job in settings.jobs if job.schedule}

    def _turn(self, now: float) -> View:
        self._read(now)
        return self._decide(now)

    def dump(self) -> dict[str, Any]:
        """What is known of each job, its learnt plan with it."""
        return {"seen": self._seen, "jobs": [(key, job) for key, job in self._jobs.items()]}

    def restore(self, found: dict[str, Any]) -> None:
        """Take over what `dump` gave; what was missed is read from there on."""
        self._seen = found["seen"]
        self._jobs = {key: job for key, job in found["jobs"]}

    def _query(self, name: str) -> str:
        return f"{name}{{{self._settings.selector}}}"

    def _read(self, now: float) -> None:
        """Add what is new since the last turn: step and its own time, from the same scrape."""
        step = self._settings.step
        last = math.floor(now / step)
        first = last - math.floor(self._settings.history / step)
        if self._seen is not None:
            first = max(first, self._seen - 1)
        whens, reached = self._points(train.LAST_STEP_TIME, first, last), self._points(train.STEP, first, last)
        totals, starts = self._now(train.STEPS_PLANNED, now), self._now(train.STARTED, now)
        for key, points in whens.items():
            steps = reached.get(key, {})
            rows = sorted(row for row, when in points.items() if row in steps and not math.isnan(when + steps[row]))
            total = totals.get(key, 0.0)
            if not rows or not total > 0 or not self._shard.mine(key):
                continue
            job = self._jobs.get(key)
            if job is None or (key in starts and job.track.started is not None and starts[key] > job.last):
                job = self._jobs[key] = self._new(key, total)  # first seen, or a new run under the same name
                if key in starts and starts[key] <= points[rows[0]]:
                    job.track.begin(starts[key])
            job.track.total = total
            for row in rows:
                if points[row] > job.last:
                    job.track.add(points[row], steps[row])
                    job.last = points[row]
                    if job.lateness.plan is None:
                        job.lateness.judge(job.track)  # a plan is learnt at its record, not at ours
        self._seen = last

    def _new(self, key: Labels, total: float) -> Job:
        schedule = self._schedules.get(dict(key).get("job_id", ""), Schedule())
        return Job(Track(total, schedule))

    def _points(self, metric: Metric, first: int, last: int) -> dict[Labels, dict[int, float]]:
        """Values by grid row of each job."""
        found: dict[Labels, dict[int, float]] = {}
        for chunk in self._reader.range(self._query(metric.name), first, last, self._settings.step, 100):
            for series in chunk:
                found.setdefault(_identity(series.labels), {}).update(
                    zip(series.rows.tolist(), series.values.tolist(), strict=True)
                )
        return found

    def _now(self, metric: Metric, now: float) -> dict[Labels, float]:
        return {_identity(labels): value for labels, value in self._reader.instant(self._query(metric.name), now)}

    def _decide(self, now: float) -> View:
        plans, steps = self._now(train.PLANNED_SECONDS, now), self._now(train.STEP, now)
        for key in [key for key in self._jobs if key not in steps]:
            del self._jobs[key]  # the job or its agent is gone, and so is its estimate
        lines: list[Line] = []
        for key, job in self._jobs.items():
            lines += self._lines(key, job, plans.get(key), now)
        view = View("ok", f"{len(self._jobs)} jobs", len(steps), found=families(lines))
        if not steps:
            view.state, view.why = "no_data", "no job reports progress"
        elif not self._jobs:
            view.state, view.why = "no_data", "no job says how many steps it will make"
        elif not lines:
            most = max(job.track.records for job in self._jobs.values())
            view.state, view.why = "warming_up", f"{most} of {SETTLED} records"
        return view

    def _lines(self, key: Labels, job: Job, plan: float | None, now: float) -> list[Line]:
        lateness = job.lateness
        if plan and (lateness.learned or lateness.plan != plan):
            lateness = job.lateness = Lateness(plan)
        judgement = lateness.judge(job.track, now)
        eta, started = judgement.eta, job.track.started
        if eta is None or started is None:
            return []
        own, end = dict(key), started + eta.total
        found = [Line(TRAIN_FINISH, own, end), Line(TRAIN_ETA, own, max(end - now, 0.0))]
        if lateness.plan:
            source = "learned" if lateness.learned else "configured"
            for bound, total in (("expected", eta.total), ("low", eta.low), ("high", eta.high)):
                labels = own | {"bound": bound, "plan": source}
                found.append(Line(TRAIN_DEVIATION, labels, total / lateness.plan - 1.0))
        if judgement.pace is not None:
            found.append(Line(TRAIN_PACE, own, judgement.pace))
        return found


def _identity(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in DROPPED)
