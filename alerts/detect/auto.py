"""The model that chooses: robust, unless the batched Prophet is clearly better on this series' own past.

Beside the one chosen, `stuck` watches for a value that stands still, which no interval shows. Both expect every point
before it is known; what decides is the mean error over the past days, each error cut so that an anomaly does not. On
labelled series a small advantage in error is none in detection, so the other one must halve it. The choice is made
anew every day, from earlier data alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands, Direction, Floors, anomaly_score
from alerts.detect.model import Options
from alerts.detect.prophet_batched import ProphetBatched
from alerts.detect.robust import Robust, RobustState
from alerts.detect.shape import Stuck, StuckState

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
    """Both models at work on N series, and their errors.

    Attributes:
        times, rows: the past that the other model learns from.
        error: sum of cut errors of robust and the other (2, N), forgetting over `HISTORY` days; `count`: of how many.
        chosen: where the other model is in use (N,).
    """

    options: Options
    robust: RobustState
    stuck: StuckState
    other: Ahead | None
    cell: float
    times: tuple[float, ...]
    rows: tuple[Array, ...]
    error: Array
    count: Array
    trial_since: float
    fitted_at: float
    chosen: npt.NDArray[np.bool_]

    def forecast(self, times: Array) -> Bands:
        return self._chosen(times, self.robust.forecast(times))

    def judge(self, times: Array, values: Array, floors: Floors, direction: Direction) -> tuple[Bands, Array]:
        """Bands and scores (1, N) of the values (1, N) at a moment (1,)."""
        bands, scores = self.robust.judge(times, values, floors, direction)
        if self.other is not None and self.chosen.any():
            bands = self._chosen(times, bands)
            scores = np.where(self.chosen, anomaly_score(values, bands, floors, direction), scores)
        _, still = self.stuck.judge(times, values, floors, direction)
        return bands, np.where(np.isnan(scores), np.nan, np.fmax(scores, still))

    def update(self, times: Array, values: Array) -> AutoState:
        if len(times) == 1:
            return self._take(times, values)
        state = self
        for row in range(len(times)):
            state = state._take(times[row : row + 1], values[row : row + 1])
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

    def _chosen(self, times: Array, ours: Bands) -> Bands:
        if self.other is None or not self.chosen.any():
            return ours
        theirs = self.other.at(times)
        take = self.chosen & ~np.isnan(theirs.yhat)
        return Bands(*(np.where(take, their, our) for our, their in zip(ours, theirs, strict=True)))

    def _take(self, moment: Array, values: Array) -> AutoState:
        time, row = float(moment[0]), values[0]
        error, count = self._compared(moment, row)
        times, rows = self.times, self.rows
        if not times or time - times[-1] >= self.cell:
            limit = round(HISTORY * DAY / self.cell)
            times, rows = (*times[-limit + 1 :], time), (*rows[-limit + 1 :], row)
        state = replace(
            self,
            robust=self.robust.update(moment, values),
            stuck=self.stuck.update(moment, values),
            times=times,
            rows=rows,
            error=error,
            count=count,
        )
        return state._choose(time) if time - self.fitted_at >= DAY else state

    def _compared(self, moment: Array, row: Array) -> tuple[Array, Array]:
        if self.other is None:
            return self.error, self.count
        mine, theirs = self.robust.forecast(moment), self.other.at(moment)
        cut = mine.upper[0] - mine.yhat[0]
        pair = np.minimum(np.abs(row - np.concatenate([mine.yhat, theirs.yhat])), cut)
        known = ~np.isnan(pair).any(axis=0)
        keep = 1.0 - self.cell / (HISTORY * DAY)
        return np.where(known, keep * self.error + pair, self.error), np.where(known, keep * self.count + 1, self.count)

    def _choose(self, time: float) -> AutoState:
        """Fit the other model anew, and choose for the day to come."""
        other, since, chosen = self.other, self.trial_since, self.chosen
        if self.times[-1] - self.times[0] >= 2 * DAY:
            other = _ahead(np.array(self.times), np.array(self.rows), self.options, time, self.cell)
            since = since if self.other is not None else time
        if time - since >= TRIAL * DAY:
            # Where most values are alike both errors are nothing, and Prophet's normal noise is no description.
            chosen = ~self.robust.departure.flat & (self.count > 0) & (self.error[1] <= BETTER * self.error[0])
        return replace(self, other=other, trial_since=since, chosen=chosen, fitted_at=time)


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
            Stuck().fit(times[:0], values[:0], options),
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
