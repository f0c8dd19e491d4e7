"""How far values have departed from what was expected, judged by how far they usually do.

Four views of a value, since anomalies come in several shapes: its residual; its jump from the last few values; the
residual's mean over some and over many points (a moderate change that lasts). Each view has an edge of its own: the
larger of `Sense.width` robust deviations and the peaks that its past shows. Of each block of time (a day, as a rule)
the largest departure is kept; the edge lies `margin` times above all but the `rare` largest of the last `KEPT` blocks,
so that false alarms are rare by the day, whatever the step and the shape of the noise.

An anomaly lasts until the values have been calm for some points, or until it has lasted so long that it is how
things are now. Meanwhile nothing of it is learnt but its beginning.

Shapes: V views, N series, 2 sides (above, below).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array
from alerts.detect.rings import Cells, Ring, middle, quantile

DAY = 86400.0
POINT, JUMP, SOME, MANY = range(4)
VIEWS = 4
TINY = 1e-18
RELATIVE = 0.02
"""Least edge as a share of the expectation: no anomaly is smaller, unless it is `OFFSET` times what noise allows."""
OFFSET = 3.0
"""Times eight deviations, as a rule, beyond which a departure counts however small it is beside the level."""
KEPT = 14
FEW = 5
"""Blocks without which the peaks are widened by up to `DOUBT`."""
DOUBT = 1.3
BLOCK_POINTS = 24
"""Points of a block at least."""
WARM = 288
"""Points, or a day, before anything is said."""
HASTE = 2 * 3600.0
"""Seconds: where `WARM` points take less, they are the first block. What is sampled so finely is often watched for less
than a day; elsewhere a block that knows no daily cycle would take its peaks for anomalies."""
LEARNT = 4.0
"""Edges at which a departure is cut before it is learnt as a peak."""
AVERAGED = (6, 30)
"""Points of the means."""
WEIGHTS = np.array([[2 / (points + 1)] for points in AVERAGED])
LEVELLED = np.sqrt(WEIGHTS / (2 - WEIGHTS))
"""Deviation of such a mean, as a share of the values', where these are independent: it is never less."""
CALM = 1.5
"""Deviations within which a value no longer takes part in an anomaly."""
CALMS = 5
"""Calm points after which an anomaly has ended; half its points if those are fewer."""
HELD = 1.01
"""Least score while an anomaly lasts."""
LEAST = 10
"""Residuals that a deviation needs."""


@dataclass(frozen=True, slots=True)
class Sense:
    """What is a matter of taste, chosen by cross-validation over kinds of series (`bench/quality.py`).

    Attributes:
        width: robust deviations that an edge is away at least.
        margin: times an edge is above the past's peaks, but for the `rare` share of the blocks with the largest.
        settles: days, and `settles_points` memory cells, after which what lasts is how things are now.
    """

    width: float = 8.0
    margin: float = 1.4
    rare: float = 0.22
    settles: float = 0.5
    settles_points: int = 24


class Look(NamedTuple):
    """One row judged and not yet learnt.

    Attributes:
        off: residual in units of the usual noise at that time of day (N,); NaN where nothing is known.
        views: the departures above and below (2, V, N) in that unit; `edges`: where each is an anomaly (2, V, N).
        means: the running means with this row (2, N).
        score: above and below (2, N), before any floor.
        away: takes part in the anomaly that there is; `lasts`: that goes on (N,).
    """

    off: Array
    views: Array
    edges: Array
    means: Array
    score: Array
    away: npt.NDArray[np.bool_]
    lasts: npt.NDArray[np.bool_]


@dataclass(slots=True)
class Departure:
    """What is known of the departures of N series; `learn` changes it in place.

    Attributes:
        sizes: sizes of the residuals by cell.
        noise: their robust deviation (N,); `flat`: most are 0, and it is that of the others.
        near: the last three values that were no anomaly (3, N).
        means: running means of SOME and MANY (2, N); `usual`: usual size of each view (V, N).
        peaks: largest departures of the last blocks (KEPT, 2, V, N); `peak`: of this block; `blocks`: how many ended.
        born: blocks that had ended when things became what they are (N,).
        block_seconds: length of a block; `block_long`: of the one under way, which in a young series of fine samples
            is as long as all that came before; `start`: time of the first row; `block_since`: when the block began.
        edges: (2, V, N), made anew from time to time.
        side: 1 above, -1 below, 0 no anomaly now (N,); `flagged`, `calm`: its points, and calm ones in a row.
        seen: points so far (N,).
    """

    sense: Sense
    sizes: Ring
    noise: Array
    flat: npt.NDArray[np.bool_]
    near: Array
    means: Array
    usual: Array
    peaks: Array
    peak: Array
    blocks: int
    born: Cells
    block_seconds: float
    block_long: float
    start: float
    block_since: float
    edges: Array
    side: Array
    flagged: Array
    calm: Array
    seen: Array
    forget: float
    renewed: bool = False

    @classmethod
    def empty(cls, start: float, step: float, cell: float, series: int, sense: Sense) -> Departure:
        """A state that has seen nothing: points `step` seconds apart from Unix time `start` on."""
        cells = max(round(7 * DAY / cell), 5 * LEAST)
        block = max(DAY, BLOCK_POINTS * step)
        return cls(
            sense=sense,
            sizes=Ring.empty(cells, series, int(np.floor(start / cell)) - 1),
            noise=np.full(series, np.nan),
            flat=np.zeros(series, dtype=bool),
            near=np.full((3, series), np.nan),
            means=np.zeros((2, series)),
            usual=np.full((VIEWS, series), np.nan),
            peaks=np.zeros((KEPT, 2, VIEWS, series)),
            peak=np.zeros((2, VIEWS, series)),
            blocks=0,
            born=np.zeros(series, dtype=np.int64),
            block_seconds=block,
            block_long=WARM * step if WARM * step < HASTE else block,
            start=start,
            block_since=start,
            edges=np.full((2, VIEWS, series), np.nan),
            side=np.zeros(series),
            flagged=np.zeros(series),
            calm=np.zeros(series),
            seen=np.zeros(series),
            forget=max(step / (7 * DAY), 1e-4),
        )

    def look(self, row: Array, yhat: Array, scale: Array) -> Look:
        """Judge a row (N,) against its expectation (N,) and the noise at its time of day, 1 as a rule (N,)."""
        off = (row - yhat) / scale
        a, b, c = self.near
        near = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
        # Back to what is expected from what was not: the end of something, no jump.
        back = (np.abs(off) <= CALM * self.noise) & (np.abs(near - yhat) > 2 * CALM * self.noise * scale)
        jump = np.where(back, 0.0, row - near)
        means = self._moved(off)
        views = np.empty((2, VIEWS, len(row)))
        views[0, POINT], views[0, JUMP], views[0, SOME:] = off, jump, means
        np.negative(views[0], out=views[1])
        edges = np.maximum(self.edges, self.least(yhat))
        score = np.fmax.reduce(views / edges, axis=1)
        score[:, np.isnan(off)] = np.nan
        side = self.side
        if not side.any():
            no = np.zeros(len(row), dtype=bool)
            return Look(off, views, edges, means, score, no, no)
        # While an anomaly lasts, a value need only stay away from what was usual.
        away = (side * off > CALM * self.noise) | (side * jump > 0.5 * self.edges[0, JUMP])
        needed = np.clip(np.floor(self.flagged / 2), 1, CALMS)
        lasts = (side != 0) & (away | (self.calm + 1 < needed))
        held = np.where(lasts & ~np.isnan(off), HELD, 0.0)
        score[0] = np.where(side > 0, np.maximum(score[0], held), score[0])
        score[1] = np.where(side < 0, np.maximum(score[1], held), score[1])
        return Look(off, views, edges, means, score, away, lasts)

    def least(self, yhat: Array) -> Array:
        """Least edges (..., N) at these expectations (..., N): a share of them, or some deviations if less.

        Where most values are alike no deviation is known, and the share stands.
        """
        most = np.where(self.flat | ~(self.noise > 0), np.inf, OFFSET * self.sense.width * self.noise)
        return np.minimum(RELATIVE * np.abs(yhat), most) + TINY

    def _moved(self, off: Array) -> Array:
        """The running means with one more residual, which is cut so that one alone moves them little."""
        cut = np.minimum(self.edges[0, POINT], self.edges[1, POINT])
        cut = np.where(cut > 0, cut, np.inf)
        moved = np.empty_like(self.means)
        moved[:] = np.minimum(np.maximum(off, -cut), cut)
        moved -= self.means
        moved *= WEIGHTS
        moved += self.means
        return moved

    def learn(self, time: float, cell: int, found: Look, row: Array, warm: npt.NDArray[np.bool_]) -> None:
        """Take the row that was looked at."""
        off = found.off
        there = off == off
        self._follow(there, found, there & warm & (found.score.max(axis=0) > 1))
        self.near = np.where((row == row) & (self.side == 0), np.stack((self.near[1], self.near[2], row)), self.near)
        # Usual sizes of the views: running means, cut so that an anomaly moves them little.
        sizes = np.abs(found.views[0])
        known = self.usual == self.usual
        cut = np.where(self.usual > 0, np.minimum(sizes, 4.0 * self.usual), sizes)
        weight = np.maximum(1.0 / (self.seen + 1.0), self.forget)
        self.usual = np.where(
            there & (cut == cut), np.where(known, self.usual + weight * (cut - self.usual), sizes), self.usual
        )
        peaks = np.minimum(found.views, LEARNT * found.edges) if self.blocks else found.views
        self.peak = np.where(there, np.fmax(self.peak, peaks), self.peak)
        if time - self.block_since >= self.block_long:
            self._next_block(time)
        lasting = (self.side != 0) & (self.flagged > 1)
        self.sizes.put(cell, np.where(lasting, np.nan, np.abs(off)))
        self.seen = self.seen + there

    def _follow(self, there: npt.NDArray[np.bool_], found: Look, outside: npt.NDArray[np.bool_]) -> None:
        """Whether an anomaly begins, goes on or ends."""
        if not outside.any() and not self.side.any():
            self.means = np.where(there, found.means, self.means)
            return
        fresh = outside & (self.side == 0)
        side = np.where(fresh, np.where(found.score[0] > found.score[1], 1.0, -1.0), self.side)
        lasts = there & (found.lasts | fresh)
        ended = there & (side != 0) & ~lasts
        self.calm = np.where(there, np.where(found.away | fresh, 0.0, self.calm + 1), self.calm)
        self.flagged = np.where(lasts, self.flagged + 1, np.where(there, 0.0, self.flagged))
        self.means = np.where(there, np.where(ended, 0.0, found.means), self.means)
        self.side = np.where(there & ~lasts, 0.0, side)

    def _next_block(self, time: float) -> None:
        if self.blocks == 1 and not self.renewed:
            self.blocks, self.renewed = 0, True  # the first block knew no daily cycle: the second takes its place
        self.peaks[self.blocks % KEPT] = self.peak
        self.blocks += 1
        self.peak = np.zeros_like(self.peak)
        self.block_since += self.block_long * np.floor((time - self.block_since) / self.block_long)
        self.block_long = min(self.block_seconds, max(self.block_long, self.block_since - self.start))

    def refresh(self, which: npt.NDArray[np.bool_] | None = None) -> None:
        """Make noise and edges anew from what has been learnt; of all series, or of some (N,)."""
        noise, flat = _noise(self.sizes.values)
        edges = np.empty_like(self.edges)
        edges[:, POINT] = noise
        edges[:, JUMP:] = 1.2533 * self.usual[JUMP:]
        edges[:, JUMP] = np.where(flat, np.fmax(edges[:, JUMP], noise), edges[:, JUMP])
        edges[:, SOME:] = np.fmax(edges[:, SOME:], LEVELLED * noise)
        edges *= self.sense.width
        number = np.clip(self.blocks - self.born, 0, KEPT)
        few = number < FEW
        known = np.concatenate([self.peaks[: min(self.blocks, KEPT)], np.where(few, self.peak, 0.0)[None]])
        rank = np.broadcast_to((self.sense.rare * number).astype(np.intp), known.shape[1:])
        peak = np.take_along_axis(-np.sort(-known, axis=0), rank[None], axis=0)[0]
        edges = np.maximum(edges, self.sense.margin * np.where(few, 1 + DOUBT / (number + 1), 1.0) * peak)
        self.noise = noise if which is None else np.where(which, noise, self.noise)
        self.flat = flat if which is None else np.where(which, flat, self.flat)
        self.edges = edges if which is None else np.where(which, edges, self.edges)

    def settle(self, which: npt.NDArray[np.bool_], values: Array) -> None:
        """What has lasted so long, its cells (C, N), is how things are now.

        Where it varies far more than before, how much is usual is learnt from those cells alone, and the peaks anew.
        """
        level = middle(values)
        sizes = np.abs(values - level)
        for part in (self.side, self.flagged, self.calm):
            part[which] = 0.0
        self.means[:, which] = 0.0
        self.near[:, which] = level[which]
        usual = np.where(self.flat, 0.0, self.noise)  # that of a flat series is but the size of what just happened
        wilder = which & (middle(sizes) > 2 * usual)
        if wilder.any():
            cells = np.arange(self.sizes.last - len(values) + 1, self.sizes.last + 1) % len(self.sizes.values)
            self.sizes.values[:, wilder] = np.nan
            self.sizes.values[np.ix_(cells, np.flatnonzero(wilder))] = sizes[:, wilder]
            self.usual = np.where(wilder, np.fmax(middle(sizes), self.usual), self.usual)
            self.born = np.where(wilder, self.blocks, self.born)
            self.peaks[..., wilder] = 0.0
            self.peak[..., wilder] = 0.0
            self.refresh(wilder)


def _noise(sizes: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Robust deviation (N,) of residuals of these sizes (C, N), and where most values are alike.

    There it is half the size of the changes that do occur.
    """
    ordered = np.sort(sizes, axis=0)
    noise = 1.4826 * quantile(ordered, 0.5, LEAST)
    flat = noise == 0
    if flat.any():
        some = np.sort(np.where(sizes[:, flat] > 0, sizes[:, flat], np.nan), axis=0)
        noise[flat] = np.nan_to_num(0.5 * quantile(some, 0.5, 3))
    return noise, np.asarray(flat, dtype=bool)
