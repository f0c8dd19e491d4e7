"""Prophet's model fitted to many series at once: the same posterior, a thousand times faster.

Each series is fitted to exactly the rows it has, as Prophet does; nothing is ever filled in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array, Bands
from alerts.detect.design import DAILY, WEEKLY, YEARLY, Frame, Recipe, build, cycles
from alerts.detect.map_fit import best_variance, solve
from alerts.detect.model import Options, nothing
from alerts.detect.multiplicative import fit_multiplicative
from alerts.detect.problems import Rows, Task, by_rows, own, shared
from alerts.detect.trend_noise import half_width

CONSTANT_SIGMA = 1e-9
"""Prophet's noise of a series that never changes, as a share of its size."""
ALIKE = 16
"""From so many series with the same rows on they share one design matrix."""
PERFECT = 1e-8
"""Share of y'y below which squared residuals computed from it have too few digits."""


@dataclass(frozen=True, slots=True)
class Group:
    """Series fitted together.

    Attributes:
        columns: which series (N,).
        frame: where they lie in time.
        theta: coefficients on the scale of y / scale - mean, (N, P).
        sigma: noise on that scale (N,).
        scale, mean: (N,) each.
        step: seconds between two points.
        exact: where the conditions of the optimum were met (N,).
    """

    columns: Rows
    frame: Frame
    theta: Array
    sigma: Array
    scale: Array
    mean: Array
    step: float
    exact: npt.NDArray[np.bool_]

    def forecast(self, times: Array, waves: Array, interval: float) -> tuple[Array, Array]:
        """Expected values and half the width of the interval, (H, N) each, at Unix times (H,) with cycles (H, C)."""
        frame, theta = self.frame, self.theta
        trend, wave = frame.trend(theta, times), waves @ theta[:, frame.kinks.stop :].T
        gain = 1.0 + wave if frame.recipe.multiplicative else None
        yhat = (trend + wave if gain is None else trend * gain) + self.mean
        ahead = np.round((times[:, None] - frame.start - frame.span) / self.step)
        delta = np.abs(theta[:, frame.kinks])
        size = delta.mean(axis=1) + 1e-8 if delta.shape[1] else np.zeros(len(self.sigma))
        half = half_width(self.sigma, size, delta.shape[1], self.step / frame.span, ahead, interval, gain)
        return yhat * self.scale, half * self.scale


@dataclass(frozen=True, slots=True)
class ProphetBatch:
    """Fitted series; those that were constant have a level (N,) instead of a group, the unknown NaN."""

    groups: tuple[Group, ...]
    level: Array
    interval: float

    def forecast(self, times: Array) -> Bands:
        bands = nothing(len(times), len(self.level))
        flat = np.flatnonzero(~np.isnan(self.level))
        bands.yhat[:, flat] = self.level[flat]
        edge = CONSTANT_SIGMA * np.abs(self.level[flat])
        bands.lower[:, flat], bands.upper[:, flat] = self.level[flat] - edge, self.level[flat] + edge
        waves = {recipe: cycles(recipe, times) for recipe in {group.frame.recipe for group in self.groups}}
        for group in self.groups:
            yhat, half = group.forecast(times, waves[group.frame.recipe], self.interval)
            bands.yhat[:, group.columns] = yhat
            bands.lower[:, group.columns], bands.upper[:, group.columns] = yhat - half, yhat + half
        return bands

    def update(self, times: Array, values: Array) -> ProphetBatch:
        return self


class ProphetBatched:
    """Prophet's posterior for thousands of series on one grid. What is not finite counts as missing."""

    name = "prophet_batched"
    online = False
    min_points = 20

    def fit(self, times: Array, values: Array, options: Options) -> ProphetBatch:
        options = standardised(options, times)
        level = np.full(values.shape[1], np.nan)
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        if np.isinf(values).any():
            values = np.where(np.isinf(values), np.nan, values)
        there = ~np.isnan(values)
        batch = _Batch(times, values, there, step)
        top, bottom = np.fmax.reduce(values, axis=0), np.fmin.reduce(values, axis=0)  # of what is there
        enough = np.count_nonzero(there, axis=0) >= self.min_points
        level[enough & (top == bottom)] = top[enough & (top == bottom)]
        left = np.flatnonzero(enough & (top > bottom))
        for columns, rows in by_rows(there if len(left) == len(enough) else there[:, left]):
            batch.add(left[columns], rows, recipe(times[rows], options))
        return ProphetBatch(tuple(batch.solved()), level, options.interval)


class _Batch:
    """Times (T,) and values (T, N), of which some are `there`, and what is to be solved of them."""

    def __init__(self, times: Array, values: Array, there: npt.NDArray[np.bool_], step: float) -> None:
        self.times, self.values, self.there, self.step = times, values, there, step
        self._waves: dict[Recipe, Array] = {}
        self._groups: list[Group] = []
        self._tasks: list[Task] = []
        self._alone: dict[Recipe, list[Rows]] = {}

    def waves(self, how: Recipe) -> Array:
        if how not in self._waves:
            self._waves[how] = cycles(how, self.times)
        return self._waves[how]

    def part(self, rows: Rows, columns: Rows) -> Array:
        """Values of some rows and columns; without a copy if they are all there are."""
        if (len(rows), len(columns)) == self.values.shape:
            return self.values
        return self.values[:, columns] if len(rows) == len(self.times) else self.values[np.ix_(rows, columns)]

    def add(self, columns: Rows, rows: Rows, how: Recipe) -> None:
        """Series (N,) that all have these rows (T',), and only these."""
        if len(columns) < ALIKE and not how.multiplicative:
            self._alone.setdefault(how, []).append(columns)
            return
        y = self.part(rows, columns)
        scale = np.maximum(y.max(axis=0), -y.min(axis=0))
        design = build(how, self.times[rows], self.waves(how)[rows])
        if not how.multiplicative:
            self._tasks.append(shared(columns, design, y, scale))
            return
        found, none = fit_multiplicative(design, y / scale), np.zeros(len(columns))
        sigma = np.sqrt(found.s2)
        self._groups.append(Group(columns, design.frame, found.theta, sigma, scale, none, self.step, found.exact))

    def solved(self) -> Iterator[Group]:
        yield from self._groups
        yield from map(self._group, self._tasks)
        for how, parts in self._alone.items():
            columns = np.concatenate(parts)
            y, there = self.values[:, columns], self.there[:, columns]
            if not there.all():
                y = np.where(there, y, 0.0)
            yield from map(self._group, own(columns, how, self.times, self.waves(how), y, there))

    def _group(self, task: Task) -> Group:
        found = solve(task.problem)
        sigma = np.sqrt(found.s2)
        group = Group(task.columns, task.frame, found.theta, sigma, task.scale, task.mean, self.step, found.exact)
        fine = np.flatnonzero(found.s2 * task.problem.points < PERFECT * task.problem.square)
        if len(fine):
            sigma[fine] = self._sharpened(group, fine, task.problem.points[fine])
        return group

    def _sharpened(self, group: Group, fine: Rows, points: Array) -> Array:
        """Noise of series that fit almost perfectly, from their residuals."""
        frame, theta, columns = group.frame, group.theta[fine], group.columns[fine]
        if len(frame.start) > 1:
            frame = Frame(frame.recipe, frame.start[fine], frame.span[fine], frame.at[fine])
        yhat = frame.trend(theta, self.times) + self.waves(frame.recipe) @ theta[:, frame.kinks.stop :].T
        y = self.values[:, columns] / group.scale[fine] - group.mean[fine]
        rest = np.where(self.there[:, columns], y - yhat, 0.0)
        return np.sqrt(best_variance(np.einsum("tn,tn->n", rest, rest), points))


def standardised(options: Options, times: Array) -> Options:
    """The options with their regressors on the scale of the priors, over a history (T,)."""
    return replace(options, regressors=tuple(known.standardised(times) for known in options.regressors))


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
        regressors=options.regressors,
    )
