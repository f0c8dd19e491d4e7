"""From values with gaps to what the solver needs: every series is fitted to the rows it has, nothing is filled in.

Series that miss the same rows, as all those of a node that was away, share one design matrix. Where each series has
gaps of its own (lost packets, late starts), making a matrix for each would cost far more than the fit. But all their
columns are hinges (t - knot)+ times 1, and cycles that all series share; so a product of two columns, summed over the
rows of a series, is a few sums of 1, t, t^2, c, t c between its knots: a difference of the grid's running totals, less
the missing rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array
from alerts.detect.design import Design, Frame, Recipe, changepoint_rows, precision
from alerts.detect.map_fit import Problem

Rows = npt.NDArray[np.intp]

CHUNK = 64
"""Series with rows of their own that are summed at a time."""


@dataclass(frozen=True, slots=True)
class Task:
    """Series to be solved together: which they are (N,), where they lie, and y / scale - mean as a problem."""

    columns: Rows
    frame: Frame
    problem: Problem
    scale: Array
    mean: Array


def by_rows(there: npt.NDArray[np.bool_]) -> Iterator[tuple[Rows, Rows]]:
    """Series (T, N) that have the same rows, as (columns, rows)."""
    gaps = ~there.all(axis=0)
    whole = np.flatnonzero(~gaps)
    if len(whole):
        yield whole, np.arange(len(there))
    packed = np.packbits(there[:, gaps], axis=0).T.copy()
    groups: dict[bytes, list[int]] = {}
    for column, key in zip(np.flatnonzero(gaps), packed, strict=True):
        groups.setdefault(key.tobytes(), []).append(int(column))
    for columns in groups.values():
        yield np.array(columns, dtype=np.intp), np.flatnonzero(there[:, columns[0]])


def shared(columns: Rows, design: Design, y: Array, scale: Array) -> Task:
    """The task of series y (T, N) that all have the rows of `design`; `scale` (N,) is max |y|."""
    centred = y / scale
    mean = centred.mean(axis=0)
    centred -= mean  # else y'y - 2 theta'C + ... has no digits left where the offset is large
    made = Problem(
        gram=design.x.T @ design.x,
        cross=(design.x.T @ centred).T,
        square=np.einsum("tn,tn->n", centred, centred),
        points=np.full(len(scale), float(len(y))),
        precision=design.precision,
        centre=_centre(design.frame, mean, design.x.shape[1]),
        kinks=design.frame.kinks,
        tau=design.frame.recipe.tau,
    )
    return Task(columns, design.frame, made, scale, mean)


def own(
    columns: Rows, recipe: Recipe, times: Array, cycles: Array, y: Array, there: npt.NDArray[np.bool_]
) -> Iterator[Task]:
    """Tasks of series y (T, N), each with the rows that are `there` (T, N), two at least; those not there are 0.

    `cycles` (T, C) are the recipe's at all times.
    """
    sums = _Sums(times, cycles)
    counts = there.sum(axis=0)
    bends = np.array([len(changepoint_rows(int(count), recipe)) for count in counts])
    for number in np.unique(bends):
        alike = np.flatnonzero(bends == number)
        for begin in range(0, len(alike), CHUNK):
            some = alike[begin : begin + CHUNK]
            yield sums.task(columns[some], recipe, int(number), y[:, some].T.copy(), there[:, some].T.copy())


class _Sums:
    """Running totals over the rows of a grid, from which each series takes its own."""

    def __init__(self, times: Array, cycles: Array) -> None:
        self.times, self.cycles = times, cycles
        self.t = (times - times[0]) / (times[-1] - times[0])
        powers = np.stack([np.ones_like(self.t), self.t, self.t**2], axis=1)
        each = np.concatenate([powers, cycles, self.t[:, None] * cycles], axis=1)
        nothing = np.zeros((1, each.shape[1]))
        self.total = np.concatenate([nothing, np.cumsum(each, axis=0)])
        self.lines = np.concatenate([each, nothing]).T.copy()
        self.upper = np.triu_indices(cycles.shape[1])
        self.pairs = cycles[:, self.upper[0]] * cycles[:, self.upper[1]]

    def task(self, columns: Rows, recipe: Recipe, bends: int, y: Array, there: npt.NDArray[np.bool_]) -> Task:
        """Of series y (N, T), where `there` (N, T), with so many changepoints each."""
        scale = np.abs(y).max(axis=1)
        points = there.sum(axis=1).astype(np.float64)
        y = y / scale[:, None]
        mean = y.sum(axis=1) / points
        y = (y - mean[:, None]) * there
        knots = np.empty((len(columns), bends + 1), dtype=np.intp)  # the first row, then the changepoints'
        last = np.empty(len(columns), dtype=np.intp)
        for n, mine in enumerate(there):
            rows = np.flatnonzero(mine)
            knots[n, 0], last[n] = rows[0], rows[-1]
            knots[n, 1:] = rows[changepoint_rows(len(rows), recipe)]
        start, span = self.times[knots[:, 0]], self.times[last] - self.times[knots[:, 0]]
        frame = Frame(recipe, start, span, (self.times[knots[:, 1:]] - start[:, None]) / span[:, None])
        gram, cross = self._products(knots, last, y, there)
        linear = recipe.growth == "linear"
        if linear:  # hinges in t of their own series
            width = (self.t[last] - self.t[knots[:, 0]])[:, None]
            unit = np.ones((len(columns), gram.shape[1]))
            unit[:, : bends + 1] /= width
            gram *= unit[:, :, None] * unit[:, None, :]
            cross *= unit
        # [t], 1, the bends, the cycles: here the hinges come first and 1 after them.
        size = gram.shape[1]
        order = [0, bends + 1, *range(1, bends + 1), *range(bends + 2, size)] if linear else list(range(1, size))
        made = Problem(
            gram=gram[:, order][:, :, order],
            cross=cross[:, order],
            square=np.einsum("nt,nt->n", y, y),
            points=points,
            precision=precision(frame),
            centre=_centre(frame, mean, len(order)),
            kinks=frame.kinks,
            tau=recipe.tau,
        )
        return Task(columns, frame, made, scale, mean)

    def _products(self, knots: Rows, last: Rows, y: Array, there: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        """G and C of the columns (t - knot)+ ..., 1, cycles ..., with t on the scale of the grid."""
        series, hinges = knots.shape
        count = self.cycles.shape[1]
        at = self.t[knots]
        after = self._after(knots, last, there)
        one, t, square = after[:, :, 0], after[:, :, 1], after[:, :, 2]
        wave, moving = after[:, :, 3 : 3 + count], after[:, :, 3 + count :]
        gram = np.empty((series, hinges + 1 + count, hinges + 1 + count))
        hinge, rest = slice(0, hinges), slice(hinges + 1, None)
        # Both hinges are above 0 from the later knot on.
        pair = square[:, None, :] - (at[:, :, None] + at[:, None, :]) * t[:, None, :]
        pair += at[:, :, None] * at[:, None, :] * one[:, None, :]
        pair = np.triu(pair)
        gram[:, hinge, hinge] = pair + np.swapaxes(np.triu(pair, 1), 1, 2)
        gram[:, hinge, hinges] = gram[:, hinges, hinge] = t - at * one
        across = moving - at[:, :, None] * wave
        gram[:, hinge, rest], gram[:, rest, hinge] = across, np.swapaxes(across, 1, 2)
        gram[:, hinges, hinges] = one[:, 0]
        gram[:, hinges, rest] = gram[:, rest, hinges] = wave[:, 0]
        waves = there.astype(np.float64) @ self.pairs
        square_part = np.empty((series, count, count))
        square_part[:, self.upper[0], self.upper[1]] = square_part[:, self.upper[1], self.upper[0]] = waves
        gram[:, rest, rest] = square_part
        return gram, self._cross(knots, at, y)

    def _cross(self, knots: Rows, at: Array, y: Array) -> Array:
        """X'y (N, ...) in the order of `_products`, of y (N, T)."""
        lines = np.arange(len(knots))[:, None]
        plain, moving = np.cumsum(y, axis=1), np.cumsum(y * self.t, axis=1)
        # On the knot itself its hinge is 0, so that the sums may begin after it.
        hinge = moving[:, -1:] - moving[lines, knots] - at * (plain[:, -1:] - plain[lines, knots])
        return np.concatenate([hinge, plain[:, -1:], y @ self.cycles], axis=1)

    def _after(self, knots: Rows, last: Rows, there: npt.NDArray[np.bool_]) -> Array:
        """Totals of 1, t, t^2, c, t c (N, hinges, ...) over each series' rows from its knots on; of `there` (N, T)."""
        found: Array = self.total[last + 1][:, None, :] - self.total[knots]
        length = there.shape[1]
        row = np.arange(length)
        holes = np.flatnonzero(~there & (row > knots[:, :1]) & (row < last[:, None]))
        if len(holes):
            lost = np.take(self.lines, np.append(holes % length, length), axis=1)
            begin = np.searchsorted(holes, np.arange(len(knots))[:, None] * length + knots).ravel()
            between = np.add.reduceat(lost, begin, axis=1)  # from each knot to the next, all of a series in a row
            between[:, :-1][:, begin[1:] == begin[:-1]] = 0.0  # for reduceat nothing is the next one
            after = np.cumsum(between.reshape(-1, *knots.shape)[:, :, ::-1], axis=2)[:, :, ::-1]
            found -= np.moveaxis(after, 0, 2)
        return found


def _centre(frame: Frame, mean: Array, width: int) -> Array:
    """Prior means (N, P): Prophet's prior is on the offset of the series as it is, not on that of the centred one."""
    centre = np.zeros((len(mean), width))
    centre[:, frame.constant] = -mean
    return centre
