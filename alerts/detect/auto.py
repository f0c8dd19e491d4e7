"""The model that chooses: robust, unless the batched Prophet is clearly better on this series' own past.

Both expect every point before it is known; what decides is the mean error over the past days, each error cut so that
an anomaly does not. On labelled series a small advantage in error is none in detection, so the other one must halve
it. The choice is made anew every day, from earlier data alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands
from alerts.detect.model import Options
from alerts.detect.prophet_batched import ProphetBatched
from alerts.detect.robust import Robust, RobustState

DAY = 86400.0
HISTORY = 14
"""Days that the other model learns from."""
TRIAL = 3
"""Days of errors before there is a choice."""
BETTER = 0.5
"""The other model is taken when its error is at most this share of robust's."""
CELLS = 288
"""Most cells a day that the other model sees."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A forecast made in advance, `cell` seconds apart from `start` on."""

    start: float
    cell: float
    bands: Bands

    def at(self, times: Array) -> Bands:
        """The bands of the nearest moments; the last ones beyond the end."""
        rows = np.clip(np.round((times - self.start) / self.cell), 0, len(self.bands.yhat) - 1).astype(np.intp)
        return self.bands.at(rows)


@dataclass(frozen=True, slots=True)
class AutoState:
    """Both models at work on N series, and their errors."""

    options: Options
    robust: RobustState
    other: Ahead | None
    cell: float
    times: tuple[float, ...]
    rows: tuple[Array, ...]
    error: Array
    """Sum of cut errors of robust and the other (2, N), forgetting over `HISTORY` days, and their count."""
    count: Array
    trial_since: float
    fitted_at: float
    chosen: npt.NDArray[np.bool_]
    """Where the other model is in use (N,)."""

    def forecast(self, times: Array) -> Bands:
        bands = self.robust.forecast(times)
        if self.other is None or not self.chosen.any():
            return bands
        other = self.other.at(times)
        take = self.chosen & ~np.isnan(other.yhat)
        return Bands(*(np.where(take, theirs, ours) for ours, theirs in zip(bands, other, strict=True)))

    def update(self, times: Array, values: Array) -> AutoState:
        state = self
        for time, row in zip(times, values, strict=True):
            state = state._take(float(time), row)
        return state

    def why(self, column: int) -> str:
        """Which model judges a series, and for what reason."""
        if self.count[column] == 0:
            return "robust: too little history to compare with prophet_batched"
        ours, theirs = self.error[:, column] / self.count[column]
        name = "prophet_batched" if self.chosen[column] else "robust"
        return (
            f"{name}: mean error of robust {ours:.4g}, of prophet_batched {theirs:.4g} on the past days; "
            f"prophet_batched is taken at {BETTER:.0%} of robust's or less"
        )

    def _take(self, time: float, row: Array) -> AutoState:
        moment = np.array([time])
        mine = self.robust.forecast(moment)
        error, count = self.error, self.count
        if self.other is not None:
            theirs = self.other.at(moment)
            cut = mine.upper[0] - mine.yhat[0]
            pair = np.stack([np.minimum(np.abs(row - bands.yhat[0]), cut) for bands in (mine, theirs)])
            known = ~np.isnan(pair).any(axis=0)
            keep = 1.0 - self.cell / (HISTORY * DAY)
            error = np.where(known, keep * error + pair, error)
            count = np.where(known, keep * count + 1.0, count)
        times, rows = self.times, self.rows
        if not times or time - times[-1] >= self.cell:
            limit = round(HISTORY * DAY / self.cell)
            times, rows = (*times[-limit + 1 :], time), (*rows[-limit + 1 :], row)
        other, fitted_at, since, chosen = self.other, self.fitted_at, self.trial_since, self.chosen
        if time - fitted_at >= DAY:
            fitted_at = time
            if times[-1] - times[0] >= 2 * DAY:
                other = _ahead(np.array(times), np.array(rows), self.options, time, self.cell)
                since = since if self.other is not None else time
            if time - since >= TRIAL * DAY:
                # Where most values are alike both errors are nothing, and Prophet's normal noise is no description.
                chosen = (self.robust.slow[0] > 0) & (count > 0) & (error[1] <= BETTER * error[0])
        return AutoState(
            self.options,
            self.robust.update(moment, row[None]),
            other,
            self.cell,
            times,
            rows,
            error,
            count,
            since,
            fitted_at,
            chosen,
        )


def _ahead(times: Array, rows: Array, options: Options, now: float, cell: float) -> Ahead:
    """Fit the other model and have it say the next two days."""
    moments = np.asarray(now + cell * np.arange(round(2 * DAY / cell)), dtype=np.float64)
    return Ahead(now, cell, ProphetBatched().fit(times, rows, options).forecast(moments))


class Auto:
    """Robust or Prophet's model, whichever the series' own past favours."""

    name = "auto"
    online = True
    min_points = Robust.min_points

    def fit(self, times: Array, values: Array, options: Options) -> AutoState:
        series = values.shape[1]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 300.0
        empty = AutoState(
            options,
            Robust.empty(float(times[0]) if len(times) else 0.0, step, series),
            None,
            max(step, DAY / CELLS),
            (),
            (),
            np.zeros((2, series)),
            np.zeros(series),
            np.inf,
            float(times[0]) if len(times) else 0.0,
            np.zeros(series, dtype=bool),
        )
        return empty.update(times, values)
