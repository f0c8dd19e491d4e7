"""The clock of the service: APScheduler with its traps closed.

Jobs are scattered over their period by a hash of their name (jitter only adds, and adds up), run at most once at a
time, coalesce, and may start late by a whole period (the default drops a run that is one second late). All in UTC.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)

BEAT = 2.0
"""Seconds between two signs of life of the scheduler's own thread."""
START_WITHIN = 10.0
"""First runs are scattered over this many seconds at most."""

SOON = timedelta(seconds=0.5)
"""So long a run that is about to end is waited for."""

STEP_BACK = 2.0
"""Seconds by which the machine's clock must have gone back to be followed; less is drift."""

_REASONS = {EVENT_JOB_MISSED: "missed", EVENT_JOB_MAX_INSTANCES: "still_running", EVENT_JOB_ERROR: "error"}


def share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone: where in its period a job runs."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4).digest(), "big") / 2**32


class Clock:
    """Runs jobs.

    Args:
        threads: jobs that may run at one time.
        missed: called with "missed", "still_running" or "error" for each run that did not take place as planned.
    """

    def __init__(self, threads: int, missed: Callable[[str, str], None]) -> None:
        self._missed = missed
        self._scheduler = BackgroundScheduler(
            timezone=timezone.utc,
            executors={"default": ThreadPoolExecutor(threads), "beat": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._heard, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_ERROR)
        self.last_beat = 0.0
        """Unix time at which the scheduler last ran anything: it can be dead while it says it runs."""
        self._beat_mark = 0.0
        self._ahead = time.time() - time.monotonic()
        """How far the machine's clock is ahead of the one that nobody sets."""

    def every(self, name: str, period: float, work: Callable[[], Any], *, soon: bool = True) -> None:
        """Run `work` every `period` seconds, first soon after start or, if not `soon`, after a period."""
        now = datetime.now(timezone.utc)
        first = now + timedelta(seconds=share(name) * min(period, START_WITHIN) if soon else period)
        self._scheduler.add_job(
            work,
            IntervalTrigger(seconds=period, start_date=first, timezone=timezone.utc),
            id=name,
            name=name,
            next_run_time=first,
            misfire_grace_time=max(math.ceil(period), 1),
            replace_existing=True,
        )

    def soon(self, name: str) -> None:
        """Run a job at once, and every period from then on; one that is gone is no matter."""
        with suppress(JobLookupError):
            self._scheduler.modify_job(name, next_run_time=datetime.now(timezone.utc) + SOON)

    def remove(self, name: str) -> None:
        """Take a job out; a run under way ends by itself."""
        self._scheduler.remove_job(name)

    def start(self) -> None:
        self._beat()
        self._scheduler.add_job(
            self._beat,
            IntervalTrigger(seconds=BEAT, timezone=timezone.utc),
            id="beat",
            executor="beat",
            misfire_grace_time=None,
            replace_existing=True,
        )
        self._scheduler.start()

    def stop(self) -> None:
        """No new runs; those under way are not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def follow(self) -> None:
        """Look at the machine's clock: to be called every few seconds.

        Jobs are due at times of day: after a step back they would wait until the clock is where it was.
        """
        ahead = time.time() - time.monotonic()
        back, self._ahead = self._ahead - ahead, ahead
        if back < STEP_BACK:
            return
        log.warning("the clock was set back; jobs are scheduled anew", extra={"seconds": round(back)})
        now = datetime.now(timezone.utc)
        for job in self._scheduler.get_jobs():
            period = job.trigger.interval.total_seconds()
            job.modify(next_run_time=now + timedelta(seconds=share(job.id) * min(period, START_WITHIN)))

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of life, on the monotonic clock."""
        return time.monotonic() - self._beat_mark

    def _beat(self) -> None:
        self.last_beat = time.time()
        self._beat_mark = time.monotonic()

    def _heard(self, event: Any) -> None:
        reason = _REASONS[event.code]
        self._missed(str(event.job_id), reason)
        if reason == "error":
            log.error("job failed: %r", event.exception, extra={"job": event.job_id})
