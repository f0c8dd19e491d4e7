"""Prophet's predictive interval without its draws: one table serves every series on a grid.

In the future each step has a changepoint with probability S dt (S changepoints, dt = step on the scale of t), of
size Laplace(0, lambda), lambda = mean |delta|. The path of the trend therefore scales with the single number lambda:
unit paths U_h are drawn once, and the quantile of |sigma Z + lambda U_h| is tabulated over the ratio
r = lambda sd(U_h) / sigma. Within the history there is no trend noise.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from alerts.detect.bands import Array

PATHS = 4000
BLOCK = 500
RATIOS = np.geomspace(1e-2, 1e3, 40)
COLUMNS = 48
"""Horizons at which the table is made; between them it is interpolated."""


def half_width(
    sigma: Array,
    size: Array,
    changepoints: int,
    dt: Array,
    ahead: Array,
    interval: float,
    gain: Array | None = None,
) -> Array:
    """Half-width (H, N) of the interval that holds a share `interval`.

    Args:
        sigma: observation noise (N,).
        size: lambda, mean |delta| (N,).
        changepoints: S; 0 for a flat trend.
        dt: one step on the scale of t, (N,) or (1,) for all.
        ahead: steps past the history, integers, (H, N) or (H, 1) for all; 0 or less is within it.
        interval: such as 0.99.
        gain: what the trend's noise is multiplied by (H, N), with multiplicative cycles.
    """
    z = NormalDist().inv_cdf(0.5 + interval / 2)
    half: Array = np.broadcast_to(z * sigma, (len(ahead), len(sigma))).copy()
    if changepoints == 0 or not np.any(ahead > 0):
        return half
    at = np.maximum(ahead, 0.0)
    # Horizons share tables by powers of two, so that forecasts of many lengths make few of them.
    limit = 2.0 ** np.ceil(np.log2(np.maximum(at.max(axis=0), 1.0)))
    # The shape hardly depends on the likelihood, the spread (below, exact) does: quarters of an octave are enough.
    likelihood = np.minimum(2.0 ** (np.round(4.0 * np.log2(changepoints * dt)) / 4.0), 1.0)
    # The variance of the unit path is known: a shift i steps old has moved the trend by i + 1/2 steps.
    moved = np.sqrt(2.0 * changepoints * dt * (at**3 / 3.0 - at / 12.0)) * dt * size
    if gain is not None:
        moved = moved * np.abs(gain)
    ratio, total = moved / np.maximum(sigma, 1e-300), np.sqrt(moved**2 + sigma**2)
    alike = np.stack(np.broadcast_arrays(likelihood, limit))
    for each, horizon in np.unique(alike, axis=1).T:
        steps, table = _table(float(each), int(horizon), interval)
        same = (alike[0] == each) & (alike[1] == horizon)
        some = np.flatnonzero(same) if len(same) > 1 else np.arange(len(sigma))
        mine = at[:, some] if at.shape[1] > 1 else at
        wide = _lookup(steps, table, mine, ratio[:, some]) * total[:, some]
        half[:, some] = np.where(mine > 0, wide, half[:, some])
    return half


def _lookup(steps: Array, table: Array, at: Array, ratio: Array) -> Array:
    """Quantile factor (H, N) by horizon and ratio; linear in both, the ratio on a logarithmic scale."""
    low, high = np.log(RATIOS[0]), np.log(RATIOS[-1])
    place = (np.log(np.clip(ratio, RATIOS[0], RATIOS[-1])) - low) / (high - low) * (len(RATIOS) - 1)
    column = np.minimum(place.astype(np.intp), len(RATIOS) - 2)
    row = np.interp(at, steps, np.arange(len(steps)))
    lower = np.minimum(row.astype(np.intp), max(len(steps) - 2, 0))
    upper = np.minimum(lower + 1, len(steps) - 1)
    part, weight = place - column, row - lower
    before = (1 - weight) * table[lower, column] + weight * table[upper, column]
    after = (1 - weight) * table[lower, column + 1] + weight * table[upper, column + 1]
    return np.asarray((1 - part) * before + part * after)


@lru_cache(maxsize=64)
def _table(likelihood: float, horizon: int, interval: float) -> tuple[Array, Array]:
    """Horizons of the table (C,), factors (C, ratios)."""
    rng = np.random.default_rng(20240229)
    steps = np.unique(np.geomspace(1, horizon, COLUMNS).round().astype(np.intp))
    blocks = []
    for _ in range(PATHS // BLOCK):  # in blocks: a long horizon would fill the memory otherwise
        shifts = rng.laplace(size=(BLOCK, horizon)) * (rng.random((BLOCK, horizon)) < likelihood)
        shifts[:, 1:] = (shifts[:, 1:] + shifts[:, :-1]) / 2 if horizon > 1 else shifts[:, 1:]
        shifts[:, 0] /= 2
        blocks.append(shifts.cumsum(axis=1).cumsum(axis=1)[:, steps - 1])
    paths = np.concatenate(blocks)
    normal = rng.normal(size=PATHS)
    factors = np.empty((len(steps), len(RATIOS)))
    for row, step in enumerate(steps):
        unit = paths[:, row] / np.sqrt(2.0 * likelihood * (step**3 / 3.0 - step / 12.0))
        mixed = np.abs(normal[:, None] + unit[:, None] * RATIOS) / np.sqrt(1.0 + RATIOS**2)
        factors[row] = np.quantile(mixed, interval, axis=0)
    # With little trend noise the factor is the normal one: take the draws' own error out.
    factors *= NormalDist().inv_cdf(0.5 + interval / 2) / np.quantile(np.abs(normal), interval)
    return steps.astype(np.float64), factors
