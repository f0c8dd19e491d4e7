"""What no interval shows: a value that stands still, a level that moved, a rank that lags behind its peers.

These models look at the moment itself (`judge`), so they give scores of their own; 1 means the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands, Direction, Floors
from alerts.detect.model import Options
from alerts.detect.rings import quantile

STILL = 12
"""Points without a change that are never remarkable."""
LONGER = 4.0
"""Times the longest stand-still seen before, at which the score is 1."""
LIVELY = 30
"""Changes that a series must have shown before standing still means anything."""
SHORT = 12
"""Points of the level now; the one before is that of ten times as many."""
DEVIATIONS = 6.0
PEERS = 4
"""Series that make a group; fewer have no peers."""
APART = 0.15
"""Least distance from the peers that counts, as a share of theirs."""


@dataclass(frozen=True, slots=True)
class StuckState:
    """Last value, length of its stand-still, longest one before, and changes seen; (N,) each."""

    last: Array
    run: Array
    longest: Array
    changes: Array

    def judge(self, times: Array, values: Array, floors: Floors, direction: Direction) -> tuple[Bands, Array]:
        """Score (1, N) of the values (1, N): how long they stand still against the longest time before."""
        row = values[0]
        run = np.where(row == self.last, self.run + 1, 0.0)
        limit = np.maximum(LONGER * self.longest, STILL)
        score = np.where(self.changes >= LIVELY, run / limit, 0.0)
        score = np.where(np.isnan(row), np.nan, score)
        return Bands(values, values, values), score[None]

    def forecast(self, times: Array) -> Bands:
        here = np.repeat(self.last[None], len(times), axis=0)
        return Bands(here, here, here)

    def update(self, times: Array, values: Array) -> StuckState:
        last, run, longest, changes = self.last, self.run, self.longest, self.changes
        for row in values:
            there = ~np.isnan(row)
            same = there & (row == last)
            moved = there & ~same
            # A stand-still that was an anomaly itself must not become the measure of the next; none is one before
            # the series is known to be lively, or a count that is 0 as a rule would never be understood.
            usual = moved & ((changes < LIVELY) | (run <= np.maximum(LONGER * longest, STILL)))
            longest = np.where(usual, np.maximum(longest, run), longest)
            changes = changes + (moved & ~np.isnan(last))
            run = np.where(same, run + 1, np.where(moved, 0.0, run))
            last = np.where(there, row, last)
        return StuckState(last, run, longest, changes)


class Stuck:
    """A sensor that repeats its last value for longer than it ever did."""

    name = "stuck"
    online = True
    min_points = LIVELY

    def fit(self, times: Array, values: Array, options: Options) -> StuckState:
        zeros = np.zeros(values.shape[1])
        return StuckState(np.full(values.shape[1], np.nan), zeros, zeros, zeros).update(times, values)


@dataclass(frozen=True, slots=True)
class ShiftState:
    """The last points (11 SHORT, N), oldest first."""

    points: Array

    def judge(self, times: Array, values: Array, floors: Floors, direction: Direction) -> tuple[Bands, Array]:
        """Score (1, N): distance of the median of the last points from that before, in robust deviations."""
        now = np.concatenate([self.points[-SHORT + 1 :], values])
        bands = self.forecast(times)
        level = quantile(np.sort(now, axis=0), 0.5, SHORT // 2)
        half = bands.upper[0] - bands.yhat[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.abs(level - bands.yhat[0]) / half
        score = np.where(level == bands.yhat[0], 0.0, score)
        return bands, np.where(np.isnan(values[0]), np.nan, score)[None]

    def forecast(self, times: Array) -> Bands:
        before = np.sort(self.points[: -SHORT + 1], axis=0)
        middle = quantile(before, 0.5, 2 * SHORT)
        off = np.sort(np.abs(self.points[: -SHORT + 1] - middle), axis=0)
        half = np.maximum(DEVIATIONS / np.sqrt(SHORT) * 1.4826 * quantile(off, 0.5, 2 * SHORT), 1e-9)
        half = np.maximum(half, APART * np.abs(middle))
        parts = (middle, middle - half, middle + half)
        return Bands(*(np.repeat(part[None], len(times), axis=0) for part in parts))

    def update(self, times: Array, values: Array) -> ShiftState:
        return ShiftState(np.concatenate([self.points, values])[-len(self.points) :])


class Shift:
    """A level that moved: the last hour against the ten before, whatever single points do."""

    name = "level_shift"
    online = True
    min_points = 3 * SHORT

    def fit(self, times: Array, values: Array, options: Options) -> ShiftState:
        return ShiftState(np.full((11 * SHORT, values.shape[1]), np.nan)).update(times, values)


@dataclass(frozen=True, slots=True)
class PeersState:
    """The group of each series (N,): ranks of one job, GPUs of one node."""

    groups: npt.NDArray[np.int64]

    def judge(self, times: Array, values: Array, floors: Floors, direction: Direction) -> tuple[Bands, None]:
        """Bands (1, N) from the peers' values (1, N) at the same moment: no history is needed."""
        bands = Bands(*(np.full(values.shape, np.nan) for _ in range(3)))
        for group in np.unique(self.groups):
            members = np.flatnonzero(self.groups == group)
            row = values[0, members]
            if np.count_nonzero(~np.isnan(row)) < PEERS:
                continue
            middle = float(np.nanmedian(row))
            spread = 1.4826 * float(np.nanmedian(np.abs(row - middle)))
            half = max(DEVIATIONS * spread, APART * abs(middle))
            for part, edge in zip(bands, (middle, middle - half, middle + half), strict=True):
                part[0, members] = edge
        return bands, None

    def forecast(self, times: Array) -> Bands:
        return Bands(*(np.full((len(times), len(self.groups)), np.nan) for _ in range(3)))

    def update(self, times: Array, values: Array) -> PeersState:
        return self


class Peers:
    """A straggler: one series far from the others of its group at the same moment."""

    name = "peers"
    online = True
    min_points = 1

    def fit(self, times: Array, values: Array, options: Options) -> PeersState:
        groups = options.groups if options.groups is not None else (0,) * values.shape[1]
        return PeersState(np.array(groups, dtype=np.int64))
