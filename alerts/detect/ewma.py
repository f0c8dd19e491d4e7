"""Exponentially weighted mean and variance: the cheapest model that is any good (20 ns a sample).

Mean and variance forget with a = 2 / (span + 1); the error that updates them is cut at 4 deviations, or one
spike would blind the detector for a whole span.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from alerts.detect.bands import Array, Bands
from alerts.detect.model import Options

CUT = 4.0
"""Deviations at which an error is cut before it is learnt."""
WARM = 20
"""Values without which nothing is expected."""


@dataclass(frozen=True, slots=True)
class EwmaState:
    """What `Ewma` knows: mean and variance (N,), points seen (N,), weight and half-width in deviations."""

    mean: Array
    variance: Array
    seen: Array
    weight: float
    z: float

    def forecast(self, times: Array) -> Bands:
        half = np.where(self.seen >= WARM, self.z * np.sqrt(self.variance), np.nan)
        shape = (len(times), len(self.mean))
        mean = np.broadcast_to(np.where(np.isnan(half), np.nan, self.mean), shape)
        half = np.broadcast_to(half, shape)
        return Bands(mean.copy(), mean - half, mean + half)

    def update(self, times: Array, values: Array) -> EwmaState:
        mean, variance, seen = self.mean.copy(), self.variance.copy(), self.seen.copy()
        for row in values:
            there = ~np.isnan(row)
            first = there & np.isnan(mean)
            mean[first] = row[first]
            variance[first] = 0.0
            # While few points are known the plain average is better than a weight of 1/span.
            weight = np.maximum(self.weight, 1.0 / (seen + 1.0))
            error = np.where(there, row - mean, 0.0)
            if self.z > 0:
                limit = np.where(seen >= 10, CUT * np.sqrt(variance), np.inf)
                # A flat past has no deviation to cut at: let it learn.
                limit = np.where(variance > 0, limit, np.inf)
                error = np.clip(error, -limit, limit)
            mean = mean + weight * error
            variance = np.where(there, (1 - weight) * (variance + weight * error * error), variance)
            seen = seen + there
        return EwmaState(mean, variance, seen, self.weight, self.z)


class Ewma:
    """Mean and deviation of the recent past."""

    name = "ewma"
    online = True
    min_points = 30

    def fit(self, times: Array, values: Array, options: Options) -> EwmaState:
        series = values.shape[1]
        z = NormalDist().inv_cdf(0.5 + options.interval / 2)
        empty = EwmaState(
            np.full(series, np.nan), np.full(series, np.nan), np.zeros(series), 2.0 / (options.span + 1), z
        )
        return empty.update(times, values)
