"""Quantile models: the recent past's own quantiles, or those of the same hour of the week. No shape is assumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alerts.detect.bands import Array, Bands
from alerts.detect.model import Options
from alerts.detect.rings import quantile

HOUR = 3600.0
WEEK = 168
"""Hours of a week."""
WEEKS = 4
LEAST = 20
"""Values that quantiles need; with one value an hour, four weeks of three hours are `FEW`."""
FEW = 8


@dataclass(slots=True)
class RollingState:
    """The last values (span, N) of each series, and where the next goes; `tails` are the edges' quantiles."""

    ring: Array
    place: int
    tails: tuple[float, float]

    def forecast(self, times: Array) -> Bands:
        ordered = np.sort(self.ring, axis=0)
        parts = [quantile(ordered, q, LEAST) for q in (0.5, *self.tails)]
        return Bands(*(np.repeat(part[None], len(times), axis=0) for part in parts))

    def update(self, times: Array, values: Array) -> RollingState:
        ring, place = self.ring.copy(), self.place
        for row in values:
            if not np.isnan(row).all():
                ring[place % len(ring)] = row
                place += 1
        return RollingState(ring, place, self.tails)


class RollingQuantile:
    """Median and tail quantiles of the last `span` points."""

    name = "rolling_quantile"
    online = True
    min_points = LEAST

    def fit(self, times: Array, values: Array, options: Options) -> RollingState:
        ring = np.full((options.span, values.shape[1]), np.nan)
        return RollingState(ring, 0, _tails(options)).update(times, values)


@dataclass(slots=True)
class SeasonalState:
    """Values (168, kept, N) of each hour of the week, how many came (168), and the edges' quantiles."""

    rings: Array
    count: np.ndarray[tuple[int], np.dtype[np.int64]]
    tails: tuple[float, float]

    def forecast(self, times: Array) -> Bands:
        series = self.rings.shape[2]
        bands = Bands(*(np.full((len(times), series), np.nan) for _ in range(3)))
        for row, time in enumerate(times):
            hour = int(time // HOUR) % WEEK
            # The hours beside lend their values: one hour of four weeks alone has few.
            near = self.rings[[(hour - 1) % WEEK, hour, (hour + 1) % WEEK]].reshape(-1, series)
            ordered = np.sort(near, axis=0)
            for part, q in zip(bands, (0.5, *self.tails), strict=True):
                part[row] = quantile(ordered, q, FEW)
        return bands

    def update(self, times: Array, values: Array) -> SeasonalState:
        rings, count = self.rings.copy(), self.count.copy()
        for time, row in zip(times, values, strict=True):
            hour = int(time // HOUR) % WEEK
            if not np.isnan(row).all():
                rings[hour, count[hour] % rings.shape[1]] = row
                count[hour] += 1
        return SeasonalState(rings, count, self.tails)


class SeasonalQuantile:
    """Quantiles of the same hour of the week over the last four weeks."""

    name = "seasonal_quantile"
    online = True
    min_points = LEAST

    def fit(self, times: Array, values: Array, options: Options) -> SeasonalState:
        step = float(np.median(np.diff(times))) if len(times) > 1 else HOUR
        kept = min(max(round(WEEKS * HOUR / step), WEEKS), 12 * WEEKS)
        rings = np.full((WEEK, kept, values.shape[1]), np.nan)
        return SeasonalState(rings, np.zeros(WEEK, dtype=np.int64), _tails(options)).update(times, values)


def _tails(options: Options) -> tuple[float, float]:
    return (1 - options.interval) / 2, (1 + options.interval) / 2
