"""The service put together: settings -> watches -> clock -> page."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from typing import Any, Protocol

from agent import __version__
from agent.base.catalogue import central as metrics
from agent.base.exposition import Format, render
from alerts.central.capacity import CapacityWatch
from alerts.central.monitor import NOT_RUN, STATES, State, View, Watch
from alerts.central.page import Counters, Line, families
from alerts.central.pool import Pool
from alerts.central.promread import Reader
from alerts.central.schedule import BEAT, Clock
from alerts.central.settings import Settings
from alerts.central.training import NAME as TRAINING
from alerts.central.training import TrainingWatch

log = logging.getLogger(__name__)

DEAD_AFTER = 15 * BEAT
"""Seconds without a sign of life after which the scheduler counts as dead."""
STALE_TURNS = 3.0
"""Periods without a good turn after which what a watch said counts no more."""
THREADS = 8
"""Turns that may run at one time; they mostly wait for Prometheus."""


class Turning(Protocol):
    """What the clock turns: a monitor, the training ETA, a capacity forecast."""

    @property
    def view(self) -> View: ...

    def turn(self) -> str: ...


class Central:
    """Everything but the web server. `start` returns at once; `stop` does not wait for runs under way."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.pool = Pool(settings.workers)
        self.reader = Reader(settings.prometheus, self._read)
        self.clock = Clock(THREADS, self._missed)
        self.watches: dict[str, Turning] = {}
        self._periods: dict[str, float] = {}
        self._models: dict[str, str] = {}
        self.counters.set(metrics.CENTRAL_BUILD, 1.0, __version__, platform.python_version())
        self.counters.set(metrics.CENTRAL_UP, time.time())
        common: dict[str, Any] = {
            "mask_tail": settings.mask_tail,
            "series_limit": settings.prometheus.series_limit,
        }
        for monitor in settings.monitors:
            self._add(monitor.name, monitor.period, Watch(monitor, self.reader, self.pool.submit, **common))
            self._models[monitor.name] = monitor.model
        for resource in settings.capacity:
            self._add(resource.name, resource.every, CapacityWatch(resource, self.reader, **common))
        if settings.training.enabled:
            self._add(TRAINING, settings.training.every, TrainingWatch(settings.training, self.reader))

    def _add(self, name: str, period: float, watch: Turning) -> None:
        self.watches[name] = watch
        self._periods[name] = period

    def start(self) -> None:
        for name, watch in self.watches.items():
            self.clock.every(name, self._periods[name], self._turning(name, watch))
        self.clock.start()

    def stop(self) -> None:
        self.clock.stop()
        self.pool.close()

    def _turning(self, name: str, watch: Turning) -> Callable[[], None]:
        def run() -> None:
            outcome = "crashed"
            try:
                outcome = watch.turn()
            finally:
                self.counters.count(metrics.MONITOR_RUNS, name, outcome)

        return run

    def _read(self, seconds: float, outcome: str) -> None:
        self.counters.observe(metrics.READ_SECONDS, seconds)
        if outcome != "ok":
            self.counters.count(metrics.READ_ERRORS, outcome)

    def _missed(self, job: str, reason: str) -> None:
        self.counters.count(metrics.JOBS_MISSED, reason)
        log.warning("a run did not take place as planned", extra={"monitor": job, "reason": reason})

    # --- what is served -------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the scheduler still turns."""
        return self.clock.silent_for < DEAD_AFTER

    def view(self, name: str) -> View:
        """What is shown of a watch: its last view, or that it is stale when its turns fail to come.

        A turn that waits in a queue behind a hanging Prometheus must not leave old values on the page.
        """
        view = self.watches[name].view
        quiet = time.time() - view.last_run if view.last_run else 0.0
        if quiet > STALE_TURNS * self._periods[name] + self.settings.prometheus.timeout:
            why = view.why if view.state in ("stale", "error") else f"no turn has ended well for {quiet:.0f} s"
            state: State = "error" if view.state == "error" else "stale"
            return View(state, why, view.series, view.last_run, view.duration, view.fitted_at)
        return view

    def waiting(self) -> list[str]:
        """Names of the watches that have not had their first turn."""
        return [name for name, watch in self.watches.items() if watch.view.why == NOT_RUN]

    def page(self, form: Format) -> bytes:
        """The /metrics page, from memory alone."""
        lines: list[Line] = []
        samples = self.counters.samples()
        samples.append(metrics.SCHEDULER_ALIVE.sample(self.clock.last_beat))
        for name in self.watches:
            view = self.view(name)
            lines += view.lines
            samples += [metrics.MONITOR_STATE.sample(float(view.state == state), name, state) for state in STATES]
            samples.append(metrics.MONITOR_SERIES.sample(view.series, name))
            samples.append(metrics.MONITOR_DURATION.sample(view.duration, name))
            if view.last_run:
                samples.append(metrics.MONITOR_LAST_RUN.sample(view.last_run, name))
        return render([families(lines, samples)], form)

    def monitors(self) -> list[dict[str, Any]]:
        """The state of every watch."""
        found = []
        for name in self.watches:
            view = self.view(name)
            entry: dict[str, Any] = {
                "name": name,
                "state": view.state,
                "why": view.why,
                "series": view.series,
                "last_run": view.last_run or None,
                "duration_seconds": round(view.duration, 4),
                "period_seconds": self._periods[name],
            }
            if name in self._models:
                entry |= {"model": self._models[name], "fitted_at": view.fitted_at or None}
            found.append(entry)
        return found
