"""The model that chooses: robust, unless the batched Prophet is clearly better on this series' own past.

Beside the one chosen, `stuck` watches for a value that stands still, which no interval shows. Both expect every point
before it is known; what decides is the mean error over the past days, each error cut so that an anomaly does not. On
labelled series a small advantage in error is none in detection, so the other one must halve it. The choice is made
anew every day, from earlier data alone; while the other model is not chosen it is tried on one day a week, which saves
most of its cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands, Direction, Floors, anomaly_score
from alerts.detect.model import Options, nothing
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
AGAIN = 7
"""Days between two trials of the other model where it is not chosen."""
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


@dataclass(slots=True)
class AutoState:
    """Both models at work on N series, and their errors. `update` changes it in place: the state before is spent.

    Attributes:
        times, rows: the past that the other model learns from.
        error: sum of cut errors of robust and the other (2, N); `count`: of how many (N,). A week counts half as much
            as the one after it.
        fitted_at, compared_at: when the other model was last fitted, and when to all series.
        chosen: where the other model is in use (N,).
        memo: robust's bands of the values judged last, which are learnt next as a rule.
    """

    options: Options
    robust: RobustState
    stuck: StuckState
    other: Ahead | None
    cell: float
    times: list[float]
    rows: list[Array]
    error: Array
    count: Array
    trial_since: float
    fitted_at: float
    compared_at: float
    chosen: npt.NDArray[np.bool_]
    memo: tuple[Array, Bands] | None = field(default=None, compare=False)

    def forecast(self, times: Array) -> Bands:
        return self._chosen(times, self.robust.forecast(times))

    def judge(self, times: Array, values: Array, floors: Floors, direction: Direction) -> tuple[Bands, Array]:
        """Bands and scores (1, N) of the values (1, N) at a moment (1,)."""
        bands, scores = self.robust.judge(times, values, floors, direction)
        self.memo = values, bands
        if self.other is not None and self.chosen.any():
            bands = self._chosen(times, bands)
            scores = np.where(self.chosen, anomaly_score(values, bands, floors, direction), scores)
        _, still = self.stuck.judge(times, values, floors, direction)
        return bands, np.where(np.isnan(scores), np.nan, np.fmax(scores, still))

    def update(self, times: Array, values: Array) -> AutoState:
        if len(times) == 1:
            self._take(times, values)
            return self
        for row in range(len(times)):
            self._take(times[row : row + 1], values[row : row + 1])
        return self

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

    def _take(self, moment: Array, values: Array) -> None:
        time, row = float(moment[0]), values[0]
        if self.other is not None and time - self.fitted_at < DAY:
            self._compare(moment, values, self.other.at(moment))
        if not self.times or time - self.times[-1] >= self.cell:
            self.times.append(time)
            self.rows.append(row)
            limit = round(HISTORY * DAY / self.cell)
            del self.times[:-limit], self.rows[:-limit]
        self.memo = None
        self.robust = self.robust.update(moment, values)
        self.stuck = self.stuck.update(moment, values)
        if time - self.fitted_at >= DAY:
            self._choose(time)

    def _compare(self, moment: Array, values: Array, theirs: Bands) -> None:
        judged = self.memo is not None and self.memo[0] is values
        mine = self.memo[1] if judged and self.memo is not None else self.robust.forecast(moment)
        cut = mine.upper[0] - mine.yhat[0]
        pair = np.minimum(np.abs(values[0] - np.concatenate([mine.yhat, theirs.yhat])), cut)
        known = ~np.isnan(pair).any(axis=0)
        self.error = np.where(known, self.error + pair, self.error)
        self.count = self.count + known

    def _choose(self, time: float) -> None:
        """Choose for the day to come, and fit the other model anew: daily where it is chosen, else once a week."""
        if time - self.trial_since >= TRIAL * DAY:
            # Where most values are alike both errors are nothing, and Prophet's normal noise is no description.
            flat = self.robust.departure.flat
            self.chosen = ~flat & (self.count > 0) & (self.error[1] <= BETTER * self.error[0])
        self.fitted_at = time
        if self.times[-1] - self.times[0] < 2 * DAY:
            return
        self.trial_since = min(self.trial_since, time)
        everywhere = time - self.trial_since < TRIAL * DAY or time - self.compared_at >= AGAIN * DAY
        if everywhere:
            keep = 0.5 ** ((time - self.compared_at) / (AGAIN * DAY))
            self.error, self.count, self.compared_at = keep * self.error, keep * self.count, time
        which = np.flatnonzero(self.chosen | everywhere)
        if len(which):
            rows = np.array(self.rows)[:, which]
            self.other = _ahead(np.array(self.times), rows, which, len(self.chosen), self.options, time, self.cell)


def _ahead(
    times: Array,
    rows: Array,
    which: npt.NDArray[np.intp],
    series: int,
    options: Options,
    now: float,
    cell: float,
) -> Ahead:
    """Fit the other model to some of the series and have it say the next two days; NaN for the others."""
    moments = np.asarray(now + cell * np.arange(round(2 * DAY / cell)), dtype=np.float64)
    said = ProphetBatched().fit(times, rows, options).forecast(moments)
    bands = nothing(len(moments), series)
    for part, new in zip(bands, said, strict=True):
        part[:, which] = new
    return Ahead(now, cell, bands)


class Auto:
    """Robust or Prophet's model, whichever the series' own past favours."""

    name = "auto"
    online = True
    min_points = Robust.min_points

    def fit(self, times: Array, values: Array, options: Options) -> AutoState:
        series = values.shape[1]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 300.0
        start, cell = float(times[0]) if len(times) else 0.0, max(step, DAY / CELLS)
        empty = AutoState(
            options,
            Robust().empty(start, step, series),
            Stuck().fit(times[:0], values[:0], options),
            None,
            cell,
            [],
            [],
            np.zeros((2, series)),
            np.zeros(series),
            np.inf,
            start,
            start,
            np.zeros(series, dtype=bool),
        )
        return empty.update(times, values)
