"""Rings of cells in time, and medians over them. Shapes: C cells, N series; NaN is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

Cells = npt.NDArray[np.int64]


@dataclass(slots=True)
class Ring:
    """The last cells (C, N) of a series of cells, by cell number modulo C; several samples in a cell are its mean."""

    values: Array
    last: int
    share: Array
    """Samples that the newest cell holds (N,)."""

    @classmethod
    def empty(cls, cells: int, series: int, last: int) -> Ring:
        return cls(np.full((cells, series), np.nan), last, np.zeros(series))

    def put(self, cell: int, row: Array) -> None:
        """Add a row (N,) to a cell that is not older than the newest."""
        values = self.values
        if cell == self.last + 1:
            values[cell % len(values)] = row
            self.last, self.share = cell, np.where(np.isnan(row), 0.0, 1.0)
            return
        if cell > self.last:
            values[np.arange(max(self.last + 1, cell - len(values) + 1), cell + 1) % len(values)] = np.nan
            self.last, self.share = cell, np.zeros_like(self.share)
        there = ~np.isnan(row)
        self.share = self.share + there
        place = cell % len(values)
        old = np.where(np.isnan(values[place]), 0.0, values[place])
        values[place] = np.where(there, old + (row - old) / np.maximum(self.share, 1.0), values[place])

    def newest(self, cells: int) -> Array:
        """The newest cells (C, N), oldest first."""
        numbers = np.arange(self.last - min(cells, len(self.values)) + 1, self.last + 1)
        return np.asarray(self.values[numbers % len(self.values)])

    def recent(self, cells: int, since: Cells | None = None, least: int = 1) -> Array:
        """Median (N,) of the newest cells; of those not before cell `since` (N,)."""
        numbers = np.arange(self.last - min(cells, len(self.values)) + 1, self.last + 1)
        picked = self.values[numbers % len(self.values)]
        if since is not None:
            picked[numbers[:, None] < since] = np.nan
        return middle(picked, least)

    def before(self, cells: Cells, back: Cells, least: int) -> Array:
        """Median (K, N) of the cells that lie `back` (B,) before each of the `cells` (K,)."""
        numbers = cells[None, :] - back[:, None]
        picked = self.values[numbers % len(self.values)]
        picked[(numbers <= self.last - len(self.values)) | (numbers > self.last)] = np.nan
        return middle(picked, least)


def middle(values: Array, least: int = 1) -> Array:
    """Median over the first axis of what is there; NaN where less than `least` is."""
    return quantile(np.sort(values, axis=0), 0.5, least)


def quantile(ordered: Array, q: float, least: int) -> Array:
    """Quantile over the first axis of sorted values (NaN last); NaN where less than `least` are there."""
    count = np.count_nonzero(ordered == ordered, axis=0)
    place = np.maximum(q * (count - 1), 0.0)
    low = place.astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    below = np.take_along_axis(ordered, low[None], axis=0)[0]
    above = np.take_along_axis(ordered, high[None], axis=0)[0]
    return np.asarray(np.where(count >= least, below + (place - low) * (above - below), np.nan))
