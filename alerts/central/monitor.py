"""One monitor at work: read new points, mask, score, and have its model fitted again when due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.base.catalogue.central import SCORE, YHAT, YHAT_LOWER, YHAT_UPPER
from agent.base.exposition import Families, Family
from alerts.central.history import Bounds, History
from alerts.central.page import dynamic_prefix, labelled
from alerts.central.promread import Labels, Reader
from alerts.central.schedule import share
from alerts.central.settings import Monitor
from alerts.central.watching import View, Watching
from alerts.detect.bands import Array, Bands, Floors, anomaly_score
from alerts.detect.design import Event
from alerts.detect.model import Fitted, Options, judge, model

SHOWN = (SCORE, YHAT, YHAT_LOWER, YHAT_UPPER)
"""What is exported of a series."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the last fit says: bands for the rows `first..`, one column for each of `keys`."""

    keys: tuple[Labels, ...]
    first: int
    bands: Bands
    fitted_at: float
    state: Fitted | None


@dataclass(frozen=True, slots=True)
class Scored:
    """The newest row that was scored: one value, expectation and score for each of `keys`, (N,) each."""

    keys: tuple[Labels, ...]
    values: Array
    bands: Bands
    scores: Array


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


def learn(name: str, options: Options, times: Array, values: Array, ahead: Array) -> tuple[Bands, Fitted | None]:
    """Fit in a worker process. Returns the forecast at `ahead` (H,) and, of online models, what they know."""
    chosen = model(name)
    fitted = chosen.fit(times, values, options)
    if chosen.online:
        return fitted.forecast(ahead[:1]), fitted
    return fitted.forecast(ahead), None


class Watch(Watching):
    """A monitor's life: new points, scores in order, and a model that is fitted again when due."""

    def __init__(
        self,
        settings: Monitor,
        reader: Reader,
        submit: Callable[..., Future[Any]],
        bounds: Bounds | None = None,
        *,
        events: tuple[Event, ...] = (),
        fit_deadline: float = math.inf,
        restart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(settings.name, clock)
        self.settings = settings
        self.history = History(settings, reader, bounds or Bounds())
        self._submit = submit
        self._model = model(settings.model)
        self._options = options_of(settings, events)
        self._floors = Floors(settings.min_dev_abs, settings.min_dev_rel)
        self._scored: int | None = None
        self._latest: Scored | None = None
        self._forecast: Forecast | None = None
        self._pending: Future[tuple[Bands, Fitted | None]] | None = None
        self._pending_for: tuple[tuple[Labels, ...], int] = ((), 0)
        self._pending_since = 0.0
        self._fit_deadline = fit_deadline
        self._restart = restart
        self._next_fit = 0.0
        self._fit_error = ""
        self._prefixes: dict[str, list[str]] = {}
        self._prefixed: tuple[Labels, ...] = ()
        self._shown = 0

    @property
    def fitting(self) -> bool:
        """Whether a worker is at the model now."""
        return self._pending is not None and not self._pending.done()

    def _turn(self, now: float) -> View:
        self._take_fit()
        came = self.history.update(now)
        self._start_fit(now)
        return self._decide(now, came)

    # --- fitting --------------------------------------------------------------------------------------------

    def _start_fit(self, now: float) -> None:
        ring, settings = self.history.ring, self.settings
        if self._pending is not None or ring.head is None or now < self._next_fit:
            return
        if self._model.online and self._forecast is not None and self._forecast.keys == tuple(ring.keys):
            return  # an online model learns with every point; a new series makes it start over from the ring
        ring.forget_silent()
        times, values = ring.window()
        ready = self._ready(times, values)
        if not ready.any():
            return
        values[:, ~ready] = np.nan
        start = int(np.argmax(~np.isnan(values).all(axis=1)))
        # Far enough that the next fit, or the one after it, is there before the forecast ends.
        rows = math.ceil(2.5 * settings.fit_every / settings.step) + 2
        ahead = (ring.head + 1 + np.arange(rows)) * settings.step
        self._pending_for = (tuple(ring.keys), ring.head)
        self._pending_since = time.monotonic()
        options = (
            replace(self._options, groups=_groups(ring.keys, settings.peers_by)) if settings.peers_by else self._options
        )
        self._pending = self._submit(learn, settings.model, options, times[start:], values[start:], ahead)
        self._next_fit = now + settings.fit_every * (1.0 if self._forecast else 1.0 + share(settings.name))

    def _ready(self, times: Array, values: Array) -> npt.NDArray[np.bool_]:
        """Which series (N,) have the history that the monitor asks for, at least half of it filled."""
        there = ~np.isnan(values)
        points = there.sum(axis=0)
        span = np.where(points > 0, times[-1] - times[np.argmax(there, axis=0)] + self.settings.step, 0.0)
        least = max(self._model.min_points, math.ceil(0.5 * self.settings.min_history / self.settings.step))
        ready: npt.NDArray[np.bool_] = (span >= self.settings.min_history) & (points >= least)
        return ready

    def _take_fit(self) -> None:
        """Take over the result of a fit that has ended."""
        if self._pending is None:
            return
        if not self._pending.done():
            if time.monotonic() - self._pending_since > self._fit_deadline:
                self._pending = None
                self._fit_error = f"a fit took longer than {self._fit_deadline:.0f} s and was ended"
                self._next_fit = self._clock() + self.settings.fit_every
                self._restart()
            return
        pending, self._pending = self._pending, None
        keys, head = self._pending_for
        try:
            bands, state = pending.result()
        except Exception as error:  # whatever a model raises is this monitor's trouble alone
            self._fit_error = f"fit failed: {type(error).__name__}: {error}"
            self._next_fit = self._clock() + min(self.settings.fit_every, 60.0)
            return
        self._fit_error = ""
        self._forecast = Forecast(keys, head + 1, bands.clipped(self.settings.data_range), self._clock(), state)
        if state is not None:
            self._scored = head  # an online model goes on where its fit ended

    # --- deciding -------------------------------------------------------------------------------------------

    def _decide(self, now: float, came: bool) -> View:
        ring = self.history.ring
        view = View(series=ring.series)
        if self._forecast is not None:
            view.fitted_at = self._forecast.fitted_at
        if ring.head is None or not ring.series:
            view.state, view.why = "no_data", "the query has no series"
        elif self._fit_error and self._forecast is None:
            view.state, view.why = "error", self._fit_error
        elif self._forecast is None:
            view.state, view.why = "warming_up", self._how_warm()
        else:
            self._score(now, view, self._forecast)
        if not came and view.state != "warming_up":
            view.state, view.why, view.found = "no_data", "no new points", {}
        return view

    def _how_warm(self) -> str:
        if self._pending is not None:
            return "first fit under way"
        times, values = self.history.ring.window()
        there = ~np.isnan(values).all(axis=1)
        have = float(times[-1] - times[np.argmax(there)]) if there.any() else 0.0
        return f"{have:.0f} s of {self.settings.min_history:.0f} s of history"

    def _score(self, now: float, view: View, forecast: Forecast) -> None:
        """Score the rows that came since the last turn, in order; the page shows the newest."""
        ring = self.history.ring
        assert ring.head is not None
        oldest = ring.head - ring.length + 1
        first = max(self._scored + 1 if self._scored is not None else ring.head, oldest, forecast.first)
        columns = ring.columns(forecast.keys)
        inside = np.flatnonzero(columns >= 0)
        present = columns[inside]
        last = ring.head
        values = np.full((max(last - first + 1, 0), len(forecast.keys)), np.nan)
        values[:, inside] = ring.rows(first, last)[:, present] if len(values) else 0.0
        bands, scores = self._judge(forecast, first, values)
        if first <= last:
            self._scored = last
            self._latest = Scored(forecast.keys, values[-1], Bands(*(part[-1] for part in bands)), scores[-1])
        if self._latest is not None:
            view.found = self._families(self._latest)
        new = ring.series - len(present)
        if np.isnan(bands.yhat).all() and first <= last and self._model.online:
            view.state, view.why = "warming_up", f"the model {self.settings.model} needs more points"
        elif np.isnan(bands.yhat).all() and first <= last:
            view.state, view.why = "stale", "the last forecast has run out"
        elif now - forecast.fitted_at > 2.2 * self.settings.fit_every and not self._model.online:
            view.state, view.why = "stale", self._fit_error or "the model is older than two fit periods"
        else:
            view.state, view.why = "ok", f"{self._shown} of {ring.series} series scored"
            if new:
                view.why += f"; {new} wait for a fit"

    def _judge(self, forecast: Forecast, first: int, values: Array) -> tuple[Bands, Array]:
        """Bands and scores (K, N) of the rows from `first`; each row only from what came before it."""
        settings = self.settings
        if forecast.state is None:
            start = first - forecast.first
            width = forecast.bands.yhat.shape[0]
            index = np.arange(start, start + len(values))
            bands = Bands(*(np.full(values.shape, np.nan) for _ in range(3)))
            good = (index >= 0) & (index < width)
            for part, source in zip(bands, forecast.bands, strict=True):
                part[good] = source[index[good]]
            bands = bands.clipped(settings.data_range)
            scores = anomaly_score(values, bands, self._floors, settings.direction, settings.data_range)
            return bands, scores
        state, parts = forecast.state, []
        for offset in range(len(values)):
            moment, point = np.array([(first + offset) * settings.step]), values[offset : offset + 1]
            bands, score = judge(state, moment, point, self._floors, settings.direction, settings.data_range)
            parts.append((*bands, score))
            state = state.update(moment, point)
        self._forecast = Forecast(forecast.keys, forecast.first, forecast.bands, forecast.fitted_at, state)
        if not parts:
            return forecast.bands.at(slice(0, 0)), values
        *edges, scores = (np.concatenate(group) for group in zip(*parts, strict=True))
        return Bands(*edges), scores

    def _families(self, newest: Scored) -> Families:
        """The newest values as the page takes them; what has no score is absent, neither NaN nor 0."""
        if self._prefixed != newest.keys:
            own = {"monitor": self.settings.name, "model": self.settings.model}
            labels = [labelled(key, own) for key in newest.keys]
            self._prefixes = {metric.stem: [dynamic_prefix(metric, each) for each in labels] for metric in SHOWN}
            self._prefixed = newest.keys
        there = np.flatnonzero(~np.isnan(newest.scores))
        self._shown = len(there)
        bands = newest.bands
        found = {}
        for metric, values in zip(SHOWN, (newest.scores, bands.yhat, bands.lower, bands.upper), strict=True):
            prefixes = self._prefixes[metric.stem]
            lines = dict(zip((prefixes[column] for column in there), values[there].tolist(), strict=True))
            found[metric.stem] = Family(metric, lines)
        return found if len(there) else {}

    # --- kept over restarts ---------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Points and forecast; what an online model knows is learnt again from the points."""
        found: dict[str, Any] = {"history": self.history.dump(), "scored": self._scored, "next_fit": self._next_fit}
        forecast = self._forecast
        if forecast is not None and forecast.state is None:
            found["forecast"] = {
                "keys": [list(key) for key in forecast.keys],
                "first": forecast.first,
                "bands": list(forecast.bands),
                "fitted_at": forecast.fitted_at,
            }
        return found

    def restore(self, found: dict[str, Any]) -> None:
        """Take over what `dump` gave.

        Raises:
            KeyError, TypeError, ValueError: it is not of this monitor.
        """
        self.history.restore(found["history"])
        kept = found.get("forecast")
        if kept is None:
            return
        keys = tuple(tuple((str(k), str(v)) for k, v in key) for key in kept["keys"])
        bands = Bands(*(np.asarray(part, dtype=np.float64) for part in kept["bands"]))
        if any(part.ndim != 2 or part.shape[1] != len(keys) for part in bands):
            raise ValueError("a forecast of other series")
        self._forecast = Forecast(keys, int(kept["first"]), bands, float(kept["fitted_at"]), None)
        self._scored, self._next_fit = found["scored"], float(found["next_fit"])


def _groups(keys: list[Labels], by: tuple[str, ...]) -> tuple[int, ...]:
    """The number of each series' group: those that agree in the labels `by` are peers."""
    known: dict[tuple[str, ...], int] = {}
    return tuple(known.setdefault(tuple(dict(key).get(name, "") for name in by), len(known)) for key in keys)
