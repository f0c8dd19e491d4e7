"""The robust model: the median of three plain expectations, and how far values depart from it.

Expectations: the median of the last three days; the median of the same time of day in the last week; and that plus
how far today is from it. The middle one of the three is right in more situations than any of them, and none is moved
by a spike. Where a week's shape has been known for two weeks and expected twice as well, it takes their place. What is
an anomaly is decided by `departure`.

Online, no refit. Expectations are made for an hour at a time, so that a point costs little.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands, Direction, Floors
from alerts.detect.departure import WARM, Departure, Look, Sense
from alerts.detect.model import Options
from alerts.detect.rings import Cells, Ring, middle

DAY = 86400.0
DAYS = 7
WEEKS = 4
FINEST = 300.0
"""Seconds of a memory cell at least; finer samples share one by their mean."""
HOUR = 3600.0
LEAST = 20
"""Values that a median needs."""
FEWEST = 4
"""Cells that a cycle must have."""
BETTER = 0.75
"""The week's shape is taken when its error is at most this share of the others'."""


@dataclass(slots=True)
class Ahead:
    """What is expected of the cells from `first` on, (K, N) each.

    Attributes:
        usual: at that time of day; `weekly`: at that hour of the week; `plain`: without the week's shape.
        scale: usual noise at that time of day, as a multiple of that of all times.
    """

    first: int
    yhat: Array
    usual: Array
    weekly: Array
    plain: Array
    scale: Array


@dataclass(slots=True)
class RobustState:
    """What the robust model remembers of N series. `update` changes it in place: the state before is spent.

    Attributes:
        cell: seconds of a memory cell; `born`: number of the first.
        values, today: means of the past week's cells; and how far those of the last day were from the usual.
        hours: means by hour, for the week's shape.
        since: cell since which things are as they are now (N,).
        first: time of the first sample (N,).
        lasting: cells since which an anomaly has lasted (N,).
        error: sums of cut errors without and with the week's shape (2, N), of `compared` days (N,).
        week_off: how far this day is from the week's shape (N,).
        ahead: what is expected of the hour to come; `memo`: the last values judged, which are learnt next as a rule.
    """

    cell: float
    step: float
    born: int
    values: Ring
    today: Ring
    hours: Ring
    departure: Departure
    since: Cells
    first: Array
    lasting: Array
    error: Array
    compared: Array
    week_off: Array
    ahead: Ahead | None = None
    memo: tuple[Array, Look] | None = field(default=None, compare=False)

    @property
    def period(self) -> int:
        """Cells of the cycle whose moments are compared: a day, or a week where a day has few; 0 if both have."""
        return _period(self.cell)

    @property
    def horizon(self) -> int:
        """Cells for which expectations are made at once: an hour, or six cells where that is no quarter of a day."""
        return max(round(HOUR / self.cell), min(6, round(DAY / 4 / self.cell)), 1)

    def forecast(self, times: Array) -> Bands:
        cells = np.floor(times / self.cell).astype(np.int64)
        ahead = self._expect(cells) if len(times) > 1 else None
        if ahead is None:
            ahead, place = self._ahead(int(cells[0]))
            return self._bands(ahead.yhat[[place]], ahead.scale[[place]], self._warm(times[:, None]))
        return self._bands(ahead.yhat, ahead.scale, self._warm(times[:, None]))

    def judge(self, times: Array, values: Array, floors: Floors, direction: Direction) -> tuple[Bands, Array]:
        """Bands and scores (1, N) of the values (1, N) at a moment (1,)."""
        time, row = float(times[0]), values[0]
        ahead, place = self._ahead(int(np.floor(time / self.cell)))
        yhat, scale = ahead.yhat[place], ahead.scale[place]
        found = self._look(yhat, scale, row)
        self.memo = values, found
        warm = self._warm(time)
        above, below = found.score
        score = {"above": above, "below": below, "both": np.fmax(above, below)}[direction]
        if floors.absolute > 0 or floors.relative > 0:
            least = np.maximum(floors.absolute, floors.relative * np.abs(yhat))
            with np.errstate(divide="ignore", invalid="ignore"):
                score = np.where(least > 0, np.minimum(score, np.abs(row - yhat) / least), score)
        score = np.where(warm, np.maximum(score, 0.0), np.nan)
        return self._bands(yhat[None], scale[None], warm), score[None]

    def update(self, times: Array, values: Array) -> RobustState:
        known = self.memo[1] if self.memo is not None and self.memo[0] is values else None
        self.memo = None
        for time, row in zip(times.tolist(), values, strict=True):
            self._take(time, row, known)
        return self

    # --- one point ------------------------------------------------------------------------------------------

    def _bands(self, yhat: Array, scale: Array, warm: npt.NDArray[np.bool_]) -> Bands:
        up, down = self.departure.edges[:, 0]
        shown = np.where((up == up) & warm, yhat, np.nan)
        least = self.departure.least(shown)
        return Bands(shown, shown - np.maximum(down * scale, least), shown + np.maximum(up * scale, least))

    def _warm(self, time: float | Array) -> npt.NDArray[np.bool_]:
        # Until a day is over a daily cycle looks like one anomaly after another.
        return np.asarray((self.departure.seen >= WARM) | (time - self.first >= DAY), dtype=bool)

    def _ahead(self, cell: int) -> tuple[Ahead, int]:
        ahead = self.ahead
        if ahead is None or not ahead.first <= cell < ahead.first + len(ahead.yhat):
            young = max((cell - self.born) // 8, 1)  # what is young is looked at more often
            ahead = self.ahead = self._expect(cell + np.arange(min(self.horizon, young)))
            self.departure.refresh()
        return ahead, cell - ahead.first

    def _look(self, yhat: Array, scale: Array, row: Array) -> Look:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.departure.look(row, yhat, scale)

    def _take(self, time: float, row: Array, known: Look | None) -> None:
        cell = int(np.floor(time / self.cell))
        if cell < self.values.last:
            return  # older than what is known: late data changes nothing any more
        ahead, place = self._ahead(cell)
        found = known or self._look(ahead.yhat[place], ahead.scale[place], row)
        there = ~np.isnan(row)
        new = there & np.isnan(self.first)
        if new.any():
            self.first = np.where(new, time, self.first)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.departure.learn(time, cell, found, row, self._warm(time))
        step = cell - self.values.last
        self.lasting = np.where(self.departure.side != 0, self.lasting + step, np.where(there, 0.0, self.lasting))
        self._learn_week(row, ahead, place, found)
        self.values.put(cell, row)
        self.today.put(cell, row - ahead.usual[place])
        self.hours.put(int(np.floor(time / max(HOUR, self.cell))), row)
        sense = self.departure.sense
        settles = max(round(sense.settles * DAY / self.cell), sense.settles_points)
        settled = self.lasting > settles
        if settled.any():
            self.since = np.where(settled, cell - settles, self.since)
            self.lasting = np.where(settled, 0.0, self.lasting)
            self.departure.settle(settled, self.values.newest(settles))
            again = self._expect(ahead.first + np.arange(len(ahead.yhat)))
            for kept, made in ((ahead.yhat, again.yhat), (ahead.plain, again.plain)):
                kept[:, settled] = made[:, settled]

    def _learn_week(self, row: Array, ahead: Ahead, place: int, found: Look) -> None:
        weekly = ahead.weekly[place]
        if np.isnan(weekly).all():
            return
        cut = found.edges[0, 0]
        off = row - weekly
        errors = np.minimum(np.abs(np.stack([row - ahead.plain[place], off - self.week_off])), cut)
        keep, known = 1.0 - self.step / (2 * DAYS * DAY), ~np.isnan(errors).any(axis=0)
        self.error = np.where(known, keep * self.error + errors, self.error)
        self.compared = np.where(known, self.compared + self.step / DAY, self.compared)
        moved = np.clip(off - self.week_off, -cut, cut) * self.step / DAY
        self.week_off = np.where(np.isnan(moved), self.week_off, self.week_off + moved)

    # --- once an hour ---------------------------------------------------------------------------------------

    def _expect(self, cells: Cells) -> Ahead:
        level = self.values.recent(max(round(3 * DAY / self.cell), 3 * LEAST), self.since, LEAST // 2)
        period, shape = self.period, (len(cells), len(level))
        usual = np.full(shape, np.nan)
        scale = np.ones(shape)
        if period:
            beside = max(round(HOUR / self.cell), 1) if period >= 12 else 0
            days = period * np.arange(1, DAYS + 1)[:, None]
            usual = self.values.before(cells, (days - np.array(sorted({-beside, 0, beside}))).ravel(), 3)
            if beside:
                scale = self._scale(cells, (days - beside * np.arange(-2, 3)).ravel())
        shift = self.today.recent(len(self.today.values), self.since, LEAST // 2)
        plain = middle(np.stack([np.broadcast_to(level, shape), usual, usual + shift]))
        weekly, yhat = np.full(shape, np.nan), plain.copy()
        hour = max(HOUR, self.cell)
        if hour <= DAY / FEWEST:
            week = round(DAYS * DAY / hour)
            places = np.floor((cells + 0.5) * self.cell / hour).astype(np.int64)
            weekly = self.hours.before(places, week * np.arange(1, WEEKS + 1), 2)
            better = (self.compared >= DAYS) & (self.error[1] <= BETTER * self.error[0]) & ~np.isnan(weekly)
            yhat = np.where(better, weekly + self.week_off, plain)
        return Ahead(int(cells[0]), yhat, usual, weekly, plain, scale)

    def _scale(self, cells: Cells, back: Cells) -> Array:
        """Usual noise at the time of day, as a multiple of that of all times."""
        sizes = self.departure.sizes
        here = sizes.before(cells, back, 6)
        whole = sizes.recent(len(sizes.values))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(here / whole, 0.5, 3.0)
        return np.where(np.isfinite(share) & (whole > 0), share, 1.0)


class Robust:
    """Median of the recent past, the usual time of day, and both together."""

    name = "robust"
    online = True
    min_points = 2 * LEAST

    def __init__(self, sense: Sense | None = None) -> None:
        self.sense = sense or Sense()

    def fit(self, times: Array, values: Array, options: Options) -> RobustState:
        step = float(np.median(np.diff(times))) if len(times) > 1 else FINEST
        start = float(times[0]) if len(times) else 0.0
        return self.empty(start, step, values.shape[1]).update(times, values)

    def empty(self, start: float, step: float, series: int) -> RobustState:
        """A state that has seen nothing yet: points `step` seconds apart, the first at Unix time `start`."""
        # Finer samples share a cell; of a series that is very fine a cell holds five, so that it too warms up soon.
        cell = max(step, min(FINEST, 5 * step))
        hour, first = max(HOUR, cell), int(np.floor(start / cell)) - 1
        back = max(DAYS * _period(cell) + 2 * max(round(HOUR / cell), 1) + 1, 3 * LEAST)
        return RobustState(
            cell,
            step,
            first,
            Ring.empty(back, series, first),
            Ring.empty(max(round(DAY / cell), LEAST), series, first),
            Ring.empty(max(round(WEEKS * DAYS * DAY / hour), 1), series, int(np.floor(start / hour)) - 1),
            Departure.empty(start, step, cell, series, self.sense),
            np.full(series, first - back, dtype=np.int64),
            np.full(series, np.nan),
            np.zeros(series),
            np.zeros((2, series)),
            np.zeros(series),
            np.zeros(series),
        )


def _period(cell: float) -> int:
    day, week = round(DAY / cell), round(7 * DAY / cell)
    return day if day >= FEWEST else week if week >= FEWEST else 0
