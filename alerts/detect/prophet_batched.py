"""Prophet's model fitted to many series at once: the same posterior, a thousand times faster.

Series that miss the same samples share a design matrix, built from exactly the rows they have, as Prophet does:
a node's outage makes one group of all its series, and nothing is ever filled in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands
from alerts.detect.design import DAILY, WEEKLY, YEARLY, Design, Recipe, build, cycles
from alerts.detect.map_fit import Problem, Solution, join, solve
from alerts.detect.model import Options, nothing
from alerts.detect.multiplicative import fit_multiplicative
from alerts.detect.trend_noise import half_width

CONSTANT_SIGMA = 1e-9
"""Prophet's noise of a series that never changes, as a share of its size."""
POOL = 16
"""Groups smaller than this are solved together, each series with its own Gram matrix."""
CANCELS = 1e-7
"""Share of variation below which y'y - T mean^2 has lost too many digits."""


@dataclass(frozen=True, slots=True)
class Group:
    """Series fitted together.

    Attributes:
        columns: which series (N,).
        design: their design, without its rows.
        theta: coefficients on the scale of y / scale - mean, (N, P).
        sigma: noise on that scale (N,).
        scale, mean: (N,) each.
        step: seconds between two points.
        exact: where the conditions of the optimum were met (N,).
    """

    columns: npt.NDArray[np.intp]
    design: Design
    theta: Array
    sigma: Array
    scale: Array
    mean: Array
    step: float
    exact: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Task:
    """Series to be fitted together: which they are (N,), their rows (T,), and what the solver needs."""

    columns: npt.NDArray[np.intp]
    rows: npt.NDArray[np.intp]
    design: Design
    problem: Problem
    scale: Array
    mean: Array


@dataclass(frozen=True, slots=True)
class ProphetBatch:
    """Fitted series; those that were constant have a level (N,) instead of a group, the unknown NaN."""

    groups: tuple[Group, ...]
    level: Array
    interval: float

    def forecast(self, times: Array) -> Bands:
        bands = nothing(len(times), len(self.level))
        known: dict[Recipe, Array] = {}
        flat = np.flatnonzero(~np.isnan(self.level))
        bands.yhat[:, flat] = self.level[flat]
        edge = CONSTANT_SIGMA * np.abs(self.level[flat])
        bands.lower[:, flat], bands.upper[:, flat] = self.level[flat] - edge, self.level[flat] + edge
        for group in self.groups:
            design = group.design
            if design.recipe not in known:
                known[design.recipe] = cycles(design.recipe, times)
            rows, width = design.rows(times, known[design.recipe]), design.trend
            gain = None
            if design.recipe.multiplicative:
                gain = 1.0 + rows[:, width:] @ group.theta[:, width:].T
                yhat = rows[:, :width] @ group.theta[:, :width].T * gain * group.scale
            else:
                yhat = (rows @ group.theta.T + group.mean) * group.scale
            end = design.start + design.scale
            ahead = np.round((times - end) / group.step)
            delta = np.abs(group.theta[:, design.kinks])
            size = delta.mean(axis=1) + 1e-8 if delta.shape[1] else np.zeros(len(group.sigma))
            dt = group.step / design.scale
            half = half_width(group.sigma, size, delta.shape[1], dt, ahead, self.interval, gain)
            half *= group.scale
            bands.yhat[:, group.columns] = yhat
            bands.lower[:, group.columns], bands.upper[:, group.columns] = yhat - half, yhat + half
        return bands

    def update(self, times: Array, values: Array) -> ProphetBatch:
        return self


class ProphetBatched:
    """Prophet's posterior for thousands of series on one grid."""

    name = "prophet_batched"
    online = False
    min_points = 20

    def fit(self, times: Array, values: Array, options: Options) -> ProphetBatch:
        level = np.full(values.shape[1], np.nan)
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        data = Data(times, values, step)
        tasks, groups = [], []
        for columns, rows in by_mask(values, self.min_points):
            y = data.part(rows, columns)
            top, bottom = y.max(axis=0), y.min(axis=0)
            still = top == bottom
            level[columns[still]] = top[still]
            if still.any():
                columns, y, top, bottom = columns[~still], y[:, ~still], top[~still], bottom[~still]
            if len(columns):
                how = recipe(times[rows], options)
                design = build(how, times[rows], data.cycles(how)[rows])
                scale = np.maximum(np.abs(top), np.abs(bottom))
                bare = replace(design, x=np.empty((0, design.x.shape[1])))
                if how.multiplicative:
                    found = fit_multiplicative(design, design.x, y / scale)
                    none = np.zeros(len(columns))
                    groups.append(Group(columns, bare, found.theta, np.sqrt(found.s2), scale, none, step, found.exact))
                    continue
                made, mean = problem(design, y, scale)
                tasks.append(Task(columns, rows, bare, made, scale, mean))
        return ProphetBatch((*groups, *_solve_all(tasks, data)), level, options.interval)


@dataclass(frozen=True, slots=True)
class Data:
    """A batch: times (T,), values (T, N), seconds between points, and the cycles of each recipe at the times."""

    times: Array
    values: Array
    step: float
    known: dict[Recipe, Array] = field(default_factory=dict)

    def cycles(self, how: Recipe) -> Array:
        if how not in self.known:
            self.known[how] = cycles(how, self.times)
        return self.known[how]

    def part(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Array:
        """Values of some rows and columns; without a copy if they are all there are."""
        if (len(rows), len(columns)) == self.values.shape:
            return self.values
        if len(rows) == len(self.times):
            return self.values[:, columns]
        return self.values[np.ix_(rows, columns)]


def recipe(times: Array, options: Options) -> Recipe:
    """The recipe for a history at these times."""
    daily, weekly = options.cycles(times)
    seasons = [season for season, on in ((YEARLY, options.yearly), (WEEKLY, weekly), (DAILY, daily)) if on]
    return Recipe(
        options.growth,
        options.changepoints,
        options.changepoint_range,
        options.changepoint_prior,
        tuple(seasons),
        multiplicative=options.multiplicative,
        events=options.events,
    )


def by_mask(values: Array, least: int) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Series that have the same rows, as (columns, rows); those with fewer than `least` rows are left out."""
    missing = np.isnan(values)
    gaps = missing.any(axis=0)
    whole = np.flatnonzero(~gaps)
    if len(whole) and len(values) >= least:
        yield whole, np.arange(len(values))
    packed = np.packbits(missing[:, gaps], axis=0)
    groups: dict[bytes, list[int]] = {}
    for column, key in zip(np.flatnonzero(gaps), packed.T, strict=True):
        groups.setdefault(key.tobytes(), []).append(int(column))
    for columns in groups.values():
        rows = np.flatnonzero(~missing[:, columns[0]])
        if len(rows) >= least:
            yield np.array(columns, dtype=np.intp), rows


def problem(design: Design, y: Array, scale: Array) -> tuple[Problem, Array]:
    """The fit of y (T, N) divided by `scale` (N,), centred; returns the means taken out (N,) as well."""
    points, series = y.shape
    mean = y.mean(axis=0) / scale
    cross = (design.x.T @ y / scale).T - mean[:, None] * design.x.sum(axis=0)
    square = np.einsum("tn,tn->n", y, y) / scale**2 - points * mean**2
    poor = np.flatnonzero(square < CANCELS * points * mean**2)
    if len(poor):
        centred = y[:, poor] / scale[poor] - mean[poor]
        cross[poor], square[poor] = centred.T @ design.x, np.einsum("tn,tn->n", centred, centred)
    centre = np.zeros((series, design.x.shape[1]))
    centre[:, design.constant] = -mean  # Prophet's prior is on the offset of the series as it is
    gram = design.x.T @ design.x
    every = np.full(series, float(points))
    return Problem(gram, cross, square, every, design.precision, centre, design.kinks, design.recipe.tau), mean


def _solve_all(tasks: list[Task], data: Data) -> Iterator[Group]:
    """Solve big groups one by one, and small ones of the same shape together."""
    pools: dict[tuple[int, int, float], list[Task]] = {}
    for task in tasks:
        if len(task.columns) >= POOL:
            yield _group(task, data, solve(task.problem))
        else:
            design = task.design
            pools.setdefault((design.x.shape[1], len(design.at), design.recipe.tau), []).append(task)
    for pool in pools.values():
        found = solve(join([task.problem for task in pool]))
        place = 0
        for task in pool:
            own = slice(place, place + len(task.columns))
            place = own.stop
            yield _group(task, data, Solution(found.theta[own], found.s2[own], found.exact[own]))


def _group(task: Task, data: Data, found: Solution) -> Group:
    sigma = np.sqrt(_sharpened(task, data, found))
    return Group(task.columns, task.design, found.theta, sigma, task.scale, task.mean, data.step, found.exact)


def _sharpened(task: Task, data: Data, found: Solution) -> Array:
    """Variances; of series that fit almost perfectly from their residuals: y'y - ... has no digits left there."""
    made = task.problem
    fine = np.flatnonzero(made.residual(found.theta) < 1e-8 * made.square)
    s2: Array = found.s2.copy()
    if len(fine):
        design = task.design
        x = design.rows(data.times[task.rows], data.cycles(design.recipe)[task.rows])
        y = data.part(task.rows, task.columns[fine])
        rest = y / task.scale[fine] - task.mean[fine] - x @ found.theta[fine].T
        s2[fine] = made.best_variance(np.einsum("tn,tn->n", rest, rest), made.points[fine])
    return s2
