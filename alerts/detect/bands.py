"""What a model expects, and how far a value is from it.

Shapes: T or H points in time, N series. A missing value is NaN; nothing is ever filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Direction = Literal["above", "below", "both"]

OUT_OF_RANGE = 1.01
"""Least score of a value outside its possible range."""


class Bands(NamedTuple):
    """Expected value and interval, each (H, N) in the unit of the series; NaN where nothing is known."""

    yhat: Array
    lower: Array
    upper: Array

    def clipped(self, data_range: tuple[float, float] | None) -> Bands:
        """The bands within the values that the metric can take."""
        if data_range is None:
            return self
        return Bands(*(np.clip(part, *data_range) for part in self))

    def at(self, rows: slice | npt.NDArray[np.intp]) -> Bands:
        """The bands at some of the points in time."""
        return Bands(self.yhat[rows], self.lower[rows], self.upper[rows])


@dataclass(frozen=True, slots=True)
class Floors:
    """The least deviation that may count as an anomaly.

    Attributes:
        absolute: in the unit of the series.
        relative: as a share of |yhat|.

    Without a floor a series that never changes has an interval of width 0, and every change is infinite.
    """

    absolute: float = 0.0
    relative: float = 0.0


def anomaly_score(
    values: Array,
    bands: Bands,
    floors: Floors,
    direction: Direction = "both",
    data_range: tuple[float, float] | None = None,
) -> Array:
    """Score of each value: 0 at yhat, 1 at the (floored) edge of the interval, above 1 outside.

    The same meaning as vmanomaly's `anomaly_score`. The result has the shape of `values`; it is NaN where
    the value or the expectation is missing. It is neither rounded nor clipped, so that its order stays.
    """
    off = values - bands.yhat
    least = np.maximum(floors.absolute, floors.relative * np.abs(bands.yhat))
    # A width of exactly 0 would divide by 0: the resolution of a double is the last floor.
    least = np.maximum(least, 1e-9 * np.maximum(np.abs(bands.yhat), 1e-9))
    up = np.maximum(bands.upper - bands.yhat, least)
    down = np.maximum(bands.yhat - bands.lower, least)
    above = np.where(off > 0, off / up, 0.0)
    below = np.where(off < 0, -off / down, 0.0)
    score = {"above": above, "below": below, "both": np.maximum(above, below)}[direction]
    return ranged(np.where(np.isnan(off), np.nan, score), values, data_range)


def ranged(scores: Array, values: Array, data_range: tuple[float, float] | None) -> Array:
    """The scores, those of values outside the possible range no less than `OUT_OF_RANGE`."""
    if data_range is None:
        return scores
    outside = (values < data_range[0]) | (values > data_range[1])
    return np.asarray(np.where(outside & ~np.isnan(scores), np.maximum(scores, OUT_OF_RANGE), scores))
