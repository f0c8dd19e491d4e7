"""One monitor at work: read new points, mask, score, and have its model fitted again when due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agent.base.catalogue.central import SCORE, YHAT, YHAT_LOWER, YHAT_UPPER
from agent.base.exposition import Families, Family
from agent.base.log import OnChange
from alerts.central.fitting import Fits, Forecast, Source, Window, ahead, longest, standstill
from alerts.central.history import Bounds, History
from alerts.central.page import dynamic_prefix, labelled
from alerts.central.promread import Labels, Reader
from alerts.central.settings import Monitor
from alerts.central.watching import View, Watching
from alerts.detect.bands import Array, Bands, Floors, anomaly_score
from alerts.detect.model import judge, model

SHOWN = (SCORE, YHAT, YHAT_LOWER, YHAT_UPPER)
"""What is exported of a series."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The newest row that was scored: one value, expectation and score for each of `keys`, (N,) each."""

    keys: tuple[Labels, ...]
    values: Array
    bands: Bands
    scores: Array


class Watch(Watching):
    """A monitor's life: new points, scores in order, and a model that is fitted again when due."""

    def __init__(
        self,
        settings: Monitor,
        reader: Reader,
        fits: Fits,
        bounds: Bounds | None = None,
        *,
        source: Callable[[float], Source] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`source`: gives workers that read for themselves what they need; then only new points are kept here."""
        super().__init__(settings.name, clock)
        self.settings = settings
        length = min(ahead(settings), settings.length) if source else settings.length
        self.history = History(settings, reader, bounds or Bounds(), length)
        self.fits = fits
        self._source = source
        self._model = model(settings.model)
        self._floors = Floors(settings.min_dev_abs, settings.min_dev_rel)
        self._scored: int | None = None
        self._latest: Scored | None = None
        self._forecast: Forecast | None = None
        self._fitted_at = 0.0
        self._prefixes: dict[str, list[str]] = {}
        self._prefixed: tuple[Labels, ...] = ()
        self._shown = 0
        self._coarse = ""
        self._step_log = OnChange(logging.getLogger(__name__), every=86400.0)

    def _turn(self, now: float) -> View:
        self._take_fit(now)
        came = self.history.update(now)
        self._start_fit(now)
        return self._decide(now, came)

    # --- fitting --------------------------------------------------------------------------------------------

    def _start_fit(self, now: float) -> None:
        ring, first = self.history.ring, self._forecast is None
        if ring.head is None or not self.fits.idle(now):
            return
        if self._model.online and self._forecast is not None and set(ring.keys) <= set(self._forecast.keys):
            return  # an online model learns with every point; a new series makes it start over from the history
        ring.forget_silent()
        if self._source is not None:
            self.fits.start(now, self._source(now), first=first)
            return
        values = ring.window()[1]
        if not first or longest(values) * ring.step >= self.settings.min_history - ring.step:
            self._look_at_step(values)
            self.fits.start(now, Window(tuple(ring.keys), ring.head, values), first=first)

    def _look_at_step(self, values: Array) -> None:
        rows, step = standstill(values), self.settings.step
        self._coarse = f"the values change every {rows * step:g} s only, step is {step:g} s" if rows > 1 else ""
        if self._coarse:
            self._step_log.bad(f"{self._coarse}: shorter than the scrape interval?", monitor=self.name)

    def _take_fit(self, now: float) -> None:
        found = self.fits.take(now)
        if found is None:
            return
        self._forecast, self._fitted_at = found, now
        if found.state is not None or self._scored is None:
            self._scored = found.first - 1  # an online model goes on where its fit ended, and everyone begins there

    # --- deciding -------------------------------------------------------------------------------------------

    def _decide(self, now: float, came: bool) -> View:
        ring = self.history.ring
        view = View(series=ring.series, fitted_at=self._fitted_at)
        if ring.head is None or not ring.series:
            view.state, view.why = "no_data", "the query has no series"
        elif self.fits.error and self._forecast is None:
            view.state, view.why = "error", self.fits.error
        elif self._forecast is None:
            view.state, view.why = "warming_up", self._how_warm()
        else:
            self._score(now, view, self._forecast)
        if not came and view.state != "warming_up":
            view.state, view.why, view.found = "no_data", "no new points", {}
        return view

    def _how_warm(self) -> str:
        if self.fits.under_way:
            return "first fit under way"
        here = longest(self.history.ring.window()[1]) * self.settings.step
        have = max(here, self.fits.short.have if self.fits.short else 0.0)
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
        self.scored += int(np.count_nonzero(~np.isnan(scores)))
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
        elif now - self._fitted_at > 2.2 * self.settings.fit_every and not self._model.online:
            view.state, view.why = "stale", self.fits.error or "the model is older than two fit periods"
        else:
            view.state, view.why = "ok", f"{self._shown} of {ring.series} series scored"
            if new:
                view.why += f"; {new} wait for a fit"
            if self._coarse:
                view.why += f"; {self._coarse}"

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
        self._forecast = replace(forecast, state=state)
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
            found[metric.stem] = Family.of(metric, lines)
        return found if len(there) else {}

    # --- kept over restarts ---------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Points, forecast, and what an online model knows."""
        found: dict[str, Any] = {"history": self.history.dump()}
        if self._forecast is not None:
            found["forecast"] = self._forecast
            found["scored"], found["fitted_at"], found["due"] = self._scored, self._fitted_at, self.fits.due
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
        if any(part.ndim != 2 or part.shape[1] != len(kept.keys) for part in kept.bands):
            raise ValueError("a forecast of other series")
        self._forecast, self._scored = kept, found["scored"]
        self._fitted_at, self.fits.due = float(found["fitted_at"]), float(found["due"])
