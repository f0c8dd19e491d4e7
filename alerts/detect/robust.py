"""The robust model: the median of three plain expectations, with an interval from the residuals themselves.

Expectations: the median of the last three days; the median of the same time of day in the last week; and that plus
how far today is from it. The middle one of the three is right in more situations than any of them, and none is moved
by a spike. The interval is `WIDTH` robust deviations of the past week's residuals, or wider where their tail is
heavy; it narrows while a deviation lasts, so that a lasting one is seen whole.

Online, no refit; memory is a week at five minutes at most (32 kB a series).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands
from alerts.detect.model import Options

DAY = 86400.0
DAYS = 7
FINEST = 300.0
"""Seconds of a memory cell at least; finer samples share one by their mean."""
WIDTH = 6.0
TAIL = 1.3
"""The interval is at least this many times the 90 % quantile of the residuals."""
RELATIVE = 0.1
"""The interval is at least `WIDTH` times this share of the expectation, divided by `WIDTH`'s own scale."""
HOLD = 0.7
"""The interval's width, as a share of itself, while the last value was outside."""
SETTLES = 0.5
"""Days outside after which the recent level is taken from those alone."""
LEAST = 20
"""Values that a median needs."""
WARM = 288
"""Samples, or a day, before anything is said: until then a daily cycle looks like one anomaly after another."""
FEWEST = 4
"""Cells that a cycle must have."""
REFRESH = 3600.0
"""Seconds after which the slowly changing quantiles are made anew."""


@dataclass(slots=True)
class _Rings:
    """Cells of the past week, (cells, N) each, by cell number modulo their count; NaN is missing."""

    values: Array
    today: Array
    off: Array


@dataclass(frozen=True, slots=True)
class RobustState:
    """What the robust model remembers of N series. `update` writes into the rings: the state before is spent."""

    cell: float
    rings: _Rings
    last: int
    seen: Array
    """Samples so far (N,)."""
    since: Array
    """Time of the first one (N,)."""
    share: Array
    """Samples that the newest cell holds (N,)."""
    lasting: npt.NDArray[np.int64]
    """Cells since which the values have been outside (N,)."""
    level: tuple[Array, Array]
    """Median of the last three days, and how far today is from the usual (N,), as of the newest cell."""
    slow_at: int
    slow: tuple[Array, Array] = field(default=(np.empty(0), np.empty(0)))
    """Deviation and tail of the residuals (N,), as of cell `slow_at`."""
    memo: dict[float, tuple[Bands, Array]] = field(default_factory=dict, compare=False)
    """The last forecast of one moment: whoever scores a point updates with it next."""

    @property
    def period(self) -> int:
        """Cells of the cycle whose moments are compared: a day, or a week where a day has few; 0 if both have."""
        day, week = round(DAY / self.cell), round(7 * DAY / self.cell)
        return day if day >= FEWEST else week if week >= FEWEST else 0

    def forecast(self, times: Array) -> Bands:
        if len(times) == 1:
            return self._look(float(times[0]))[0]
        parts = [self._look(float(time))[0] for time in times]
        return Bands(*(np.concatenate(group) for group in zip(*parts, strict=True)))

    def _look(self, time: float) -> tuple[Bands, Array]:
        """Bands (1, N) at a moment, and what is usual at that time of day (N,)."""
        if time in self.memo:
            return self.memo[time]
        (recent, shift), (deviation, tail) = self.level, self.slow
        usual = self._same_time(int(np.floor(time / self.cell)))
        yhat = _middle(recent, usual, usual + shift)
        half = np.maximum(WIDTH * np.maximum(deviation, RELATIVE * np.abs(yhat)), TAIL * tail)
        half = np.where(self.lasting > 0, HOLD * half, half)
        warm = (self.seen >= WARM) | (time - self.since >= DAY)
        half = np.where(warm, half, np.nan)
        shown = np.where(np.isnan(half), np.nan, yhat)
        bands = Bands(shown[None], (yhat - half)[None], (yhat + half)[None])
        self.memo.clear()
        self.memo[time] = bands, usual
        return self.memo[time]

    def update(self, times: Array, values: Array) -> RobustState:
        state = self
        for time, row in zip(times, values, strict=True):
            state = state._take(float(time), row)
        return state

    # --- one point ------------------------------------------------------------------------------------------

    def _take(self, time: float, row: Array) -> RobustState:
        cell = int(np.floor(time / self.cell))
        if cell < self.last:
            return self  # older than what is known: late data changes nothing any more
        bands, usual = self._look(time)
        expected = _middle(self.level[0], usual, usual + self.level[1])
        rings, share = self.rings, self.share
        if cell > self.last:
            for ring in (rings.values, rings.today, rings.off):
                fresh = np.arange(max(self.last + 1, cell - len(ring) + 1), cell + 1) % len(ring)
                ring[fresh] = np.nan
            share = np.zeros_like(share)
        there = ~np.isnan(row)
        share = share + there
        for ring, new in ((rings.values, row), (rings.today, row - usual), (rings.off, np.abs(row - expected))):
            place = cell % len(ring)
            old = ring[place]
            mean = np.where(np.isnan(old), new, old + (new - old) / np.maximum(share, 1.0))
            ring[place] = np.where(np.isnan(new), old, mean)
        outside = there & ((row > bands.upper[0]) | (row < bands.lower[0]))
        lasting = np.where(outside, self.lasting + (cell - self.last), np.where(there, 0, self.lasting))
        since = np.where(there & (self.seen == 0), time, self.since)
        state = replace(self, last=cell, share=share, lasting=lasting, seen=self.seen + there, since=since, memo={})
        if cell > self.last:
            state = replace(state, level=state._levels())
        if cell - self.slow_at >= max(REFRESH / self.cell, 1.0) or np.isnan(self.slow[0]).all():
            state = replace(state, slow=_spread(rings.off), slow_at=cell)
        return state

    def _levels(self) -> tuple[Array, Array]:
        recent = self._recent(self.rings.values, max(round(3 * DAY / self.cell), 3 * LEAST))
        settles = max(round(SETTLES * DAY / self.cell), LEAST // 2)
        settled = self.lasting > settles
        if settled.any():  # what has lasted for so long is how it is now
            recent = np.where(settled, self._recent(self.rings.values, settles, LEAST // 2), recent)
        return recent, self._recent(self.rings.today, len(self.rings.today))

    def _recent(self, ring: Array, cells: int, least: int = LEAST) -> Array:
        index = np.arange(self.last - min(cells, len(ring)) + 1, self.last + 1) % len(ring)
        return quantile(np.sort(ring[index], axis=0), 0.5, least)

    def _same_time(self, cell: int) -> Array:
        """Median of the same time of day, an hour to each side, in the days before."""
        ring, period = self.rings.values, self.period
        beside = max(round(3600 / self.cell), 1) if period >= 12 else 0
        moves = sorted({-beside, 0, beside})
        past = [cell - back * period + move for back in range(1, DAYS + 1) for move in moves] if period else []
        known = [place for place in past if self.last - len(ring) < place <= self.last]
        if not known:
            return np.full(ring.shape[1], np.nan)
        return quantile(np.sort(ring[np.array(known) % len(ring)], axis=0), 0.5, 3)


class Robust:
    """Median of the recent past, the usual time of day, and both together."""

    name = "robust"
    online = True
    min_points = 2 * LEAST

    def fit(self, times: Array, values: Array, options: Options) -> RobustState:
        step = float(np.median(np.diff(times))) if len(times) > 1 else FINEST
        start = float(times[0]) if len(times) else 0.0
        state = self.empty(start, step, values.shape[1])
        # What lies further back than the rings hold would be forgotten again.
        held = (DAYS + 1) * max(state.period * state.cell, DAY) + 3 * LEAST * state.cell
        keep = times >= times[-1] - held if len(times) else slice(0)
        return state.update(times[keep], values[keep])

    @staticmethod
    def empty(start: float, step: float, series: int) -> RobustState:
        """A state that has seen nothing yet: points `step` seconds apart, the first at Unix time `start`."""
        # Finer samples share a cell; of a series that is very fine a cell holds five, so that it too warms up soon.
        cell = max(step, min(FINEST, 5 * step))
        day, week = round(DAY / cell), round(7 * DAY / cell)
        cycle = day if day >= FEWEST else week if week >= FEWEST else 0
        back = max(DAYS * cycle + max(round(3600 / cell), 1) + 1, 3 * LEAST)
        rings = _Rings(
            np.full((back, series), np.nan),
            np.full((max(day, LEAST), series), np.nan),
            np.full((max(week, 5 * LEAST), series), np.nan),
        )
        nothing = np.full(series, np.nan)
        first = int(np.floor(start / cell)) - 1
        return RobustState(
            cell,
            rings,
            first,
            np.zeros(series),
            np.full(series, np.nan),
            np.zeros(series),
            np.zeros(series, dtype=np.int64),
            (nothing, nothing),
            first,
            (nothing, nothing),
        )


def _middle(a: Array, b: Array, c: Array) -> Array:
    """Median of three values (N,) each; of those that are there."""
    return quantile(np.sort(np.stack([a, b, c]), axis=0), 0.5, 1)


def quantile(ordered: Array, q: float, least: int) -> Array:
    """Quantile of sorted rows (NaN last)."""
    count = (~np.isnan(ordered)).sum(axis=0)
    place = np.maximum(q * (count - 1), 0.0)
    low = place.astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    columns = np.arange(ordered.shape[1])
    below, above = ordered[low, columns], ordered[high, columns]
    return np.asarray(np.where(count >= least, below + (place - low) * (above - below), np.nan))


def _spread(off: Array) -> tuple[Array, Array]:
    """Robust deviation and tail of the residuals' sizes.

    Where most values are alike the deviation is 0: then what is usual is the size of the changes that do occur.
    """
    ordered = np.sort(off, axis=0)
    deviation, tail = 1.4826 * quantile(ordered, 0.5, LEAST), quantile(ordered, 0.9, LEAST)
    flat = np.flatnonzero(deviation == 0)
    if len(flat):
        some = np.sort(np.where(off[:, flat] > 0, off[:, flat], np.nan), axis=0)
        tail[flat] = np.fmax(tail[flat], quantile(some, 0.9, 3))
    return deviation, tail
