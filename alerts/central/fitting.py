"""Fitting a monitor's model: what is sent to a worker, what the worker does, and when it is asked again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from agent.base.errors import VigilError
from alerts.central.history import Bounds, History
from alerts.central.pool import Workers
from alerts.central.promread import Labels, Reader
from alerts.central.schedule import share
from alerts.central.settings import Monitor, Prometheus
from alerts.detect.bands import Array, Bands
from alerts.detect.design import Event
from alerts.detect.model import Fitted, Options, model

LOOKED_AT = 500
"""Newest rows, and series, in which a step that is too short is looked for."""


@dataclass(frozen=True, slots=True)
class Window:
    """Points of N series: `values` (T, N) on consecutive rows of the monitor's grid, the newest at row `head`."""

    keys: tuple[Labels, ...]
    head: int
    values: Array


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker reads the window itself: 14 days of 1,000 series are 32 MB to send, and a query is a line."""

    prometheus: Prometheus
    bounds: Bounds
    now: float

    def read(self, monitor: Monitor) -> Window:
        """The window up to `now`.

        Raises:
            ReadError: Prometheus did not answer the worker.
        """
        history = History(monitor, Reader(self.prometheus), self.bounds)
        history.update(self.now)
        ring = history.ring
        ring.forget_silent()
        return Window(tuple(ring.keys), ring.head or 0, ring.window()[1])


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a fit says: bands for the rows `first..`, one column for each of `keys`; `state` of an online model."""

    keys: tuple[Labels, ...]
    first: int
    bands: Bands
    state: Fitted | None


@dataclass(frozen=True, slots=True)
class Short:
    """No series has the history that the monitor asks for; the longest has `have` seconds."""

    have: float


def options_of(settings: Monitor, events: tuple[Event, ...] = ()) -> Options:
    """What a monitor asks of its model."""
    return Options(
        interval=settings.interval,
        daily=settings.daily,
        weekly=settings.weekly,
        span=settings.span,
        growth=settings.growth,
        multiplicative=settings.multiplicative,
        events=events,
    )


def learn(settings: Monitor, events: tuple[Event, ...], points: Window | Source) -> Forecast | Short:
    """Fit in a worker process; the same in a pool of this machine and on another one that reads for itself.

    Raises:
        ReadError: `points` is a `Source` and Prometheus did not answer.
    """
    chosen = model(settings.model)
    window = points.read(settings) if isinstance(points, Source) else points
    ready = _ready(settings, window.values, chosen.min_points) if window.values.size else np.zeros(0, dtype=np.bool_)
    if not ready.any():
        return Short(longest(window.values) * settings.step)
    values = window.values.copy()
    values[:, ~ready] = np.nan
    start = int(np.argmax(~np.isnan(values).all(axis=1)))
    times = (window.head + 1 - len(values) + np.arange(len(values), dtype=np.float64)) * settings.step
    options = options_of(settings, events)
    if settings.peers_by:
        options = replace(options, groups=_groups(window.keys, settings.peers_by))
    fitted = chosen.fit(times[start:], values[start:], options)
    rows = 1 if chosen.online else ahead(settings)
    coming = (window.head + 1 + np.arange(rows, dtype=np.float64)) * settings.step
    bands = fitted.forecast(coming).clipped(settings.data_range)
    return Forecast(window.keys, window.head + 1, bands, fitted if chosen.online else None)


def ahead(settings: Monitor) -> int:
    """Rows of a forecast: the next fit, or the one after it, is there before it ends."""
    return math.ceil(2.5 * settings.fit_every / settings.step) + 2


def longest(values: Array) -> int:
    """Rows from the first value of any series to the last row."""
    there = ~np.isnan(values).all(axis=1)
    return len(values) - 1 - int(np.argmax(there)) if there.any() else 0


def standstill(values: Array) -> int:
    """Rows (of T) for which values (T, N) stand still between changes, where they do so regularly; else 1.

    More than 1 is what a step shorter than the scrape interval looks like: every sample is seen several times.
    """
    recent = values[-LOOKED_AT:, :LOOKED_AT]
    changes = (recent[1:] != recent[:-1]) & ~np.isnan(recent[1:]) & ~np.isnan(recent[:-1])
    gaps = np.concatenate([np.diff(np.flatnonzero(column)) for column in changes.T] or [np.zeros(0)])
    if len(gaps) < 20:
        return 1
    least, usual = np.quantile(gaps, [0.02, 0.5])
    return int(usual) if least >= 2 and usual <= least + 1 else 1


def _ready(settings: Monitor, values: Array, min_points: int) -> npt.NDArray[np.bool_]:
    """Which series (N,) have the history that the monitor asks for, at least half of it filled."""
    there = ~np.isnan(values)
    points = there.sum(axis=0)
    span = np.where(points > 0, len(values) - np.argmax(there, axis=0), 0) * settings.step
    least = max(min_points, math.ceil(0.5 * settings.min_history / settings.step))
    ready: npt.NDArray[np.bool_] = (span >= settings.min_history) & (points >= least)
    return ready


def _groups(keys: tuple[Labels, ...], by: tuple[str, ...]) -> tuple[int, ...]:
    """The number of each series' group: those that agree in the labels `by` are peers."""
    known: dict[tuple[str, ...], int] = {}
    return tuple(known.setdefault(tuple(dict(key).get(name, "") for name in by), len(known)) for key in keys)


class Fits:
    """The fits of one monitor, one at a time: due, under way, taken over, past their deadline.

    Args:
        settings: of the monitor.
        workers: who fits.
        events: days on which every series may differ.
        deadline: seconds after which a fit hangs.
        observe: called with the monitor's name, the seconds and the outcome ("ok", "short", "failed", "deadline").
        ready: called with the monitor's name once its first fit has ended, from any thread.
    """

    def __init__(
        self,
        settings: Monitor,
        workers: Workers,
        *,
        events: tuple[Event, ...] = (),
        deadline: float = math.inf,
        observe: Callable[[str, float, str], None] = lambda name, seconds, outcome: None,
        ready: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.error = ""
        """Why the last fit gave nothing, "" if it did."""
        self.short: Short | None = None
        """The last fit found too little history."""
        self.due = 0.0
        """Unix time from which the model is to be fitted again."""
        self._settings = settings
        self._workers = workers
        self._events = events
        self._deadline = deadline
        self._observe = observe
        self._ready = ready
        self._pending: Future[Forecast | Short] | None = None
        self._since = 0.0
        self._took = 0.0
        """Seconds of the last fit that ended: it may be taken much later."""

    @property
    def under_way(self) -> bool:
        """Whether a worker is at it now."""
        return self._pending is not None and not self._pending.done()

    def start(self, now: float, points: Window | Source, *, first: bool) -> None:
        """Ask a worker; the first fits of many monitors are followed by fits that are scattered."""
        since = self._since = time.monotonic()

        def ended(_: Future[Forecast | Short]) -> None:
            self._took = time.monotonic() - since
            if first:
                self._ready(self._settings.name)

        self._pending = self._workers.submit(learn, self._settings, self._events, points)
        self._pending.add_done_callback(ended)
        every = self._settings.fit_every
        self.due = now + every * (1.0 + share(self._settings.name) if first else 1.0)

    def idle(self, now: float) -> bool:
        """Whether a fit is due and none is under way."""
        return self._pending is None and now >= self.due

    def take(self, now: float) -> Forecast | None:
        """The result of a fit that has ended, once; None if there is none."""
        pending = self._pending
        if pending is None:
            return None
        seconds, settings = time.monotonic() - self._since, self._settings
        if not pending.done():
            if seconds > self._deadline:
                self._pending = None
                self._ended(seconds, "deadline", f"a fit took longer than {self._deadline:.0f} s and was ended")
                self.due = now + settings.fit_every
                self._workers.restart()
            return None
        self._pending, seconds = None, self._took
        try:
            found = pending.result()
        except Exception as error:  # whatever a model raises is this monitor's trouble alone
            reason = str(error) if isinstance(error, VigilError) else f"{type(error).__name__}: {error}"
            if isinstance(error, CancelledError):
                reason = "the workers went away with it"
            self._ended(seconds, "failed", f"fit failed: {reason}")
            self.due = now + min(settings.fit_every, 60.0)
            return None
        if isinstance(found, Short):
            self.short = found
            self._ended(seconds, "short", "")
            missing = settings.min_history - found.have
            self.due = now + min(max(missing, settings.period), settings.fit_every)
            return None
        self.short = None
        self._ended(seconds, "ok", "")
        return found

    def _ended(self, seconds: float, outcome: str, error: str) -> None:
        self.error = error
        self._observe(self._settings.name, seconds, outcome)
