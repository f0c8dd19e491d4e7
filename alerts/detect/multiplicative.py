"""Multiplicative seasonality: yhat = trend (1 + cycles), fitted by turns.

Bilinear, so not one quadratic: given the cycles the trend is a lasso on columns weighted by 1 + cycles, given the
trend the cycles are a ridge on columns weighted by the trend; each turn raises the posterior. Unlike the additive fit
it may stop on another optimum than Prophet, so only the forecast is held against it.
"""

from __future__ import annotations

import numpy as np

from alerts.detect.bands import Array
from alerts.detect.design import Design
from alerts.detect.map_fit import DIGITS, Problem, Solution, best_variance, solve

TURNS = 60
GAIN = 1e-3
"""Log-posterior that a turn must bring to a series for it to get another."""
CHUNK = 64
"""Series fitted at a time: each has a Gram matrix of its own for every turn."""


def fit_multiplicative(design: Design, y: Array) -> Solution:
    """Coefficients in the order of the design's columns.

    Args:
        design: its trend columns come first, all others are cycles and events.
        y: values divided by their scale (T, N).
    """
    parts = [_chunk(design, y[:, begin : begin + CHUNK]) for begin in range(0, y.shape[1], CHUNK)]
    return Solution(
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.s2 for part in parts]),
        np.concatenate([part.exact for part in parts]),
    )


def _chunk(design: Design, y: Array) -> Solution:
    width = design.frame.kinks.stop
    x = design.x
    line, wave = x[:, :width], x[:, width:]
    pairs = [_pairs(line), _pairs(wave)]
    theta, s2 = np.zeros((y.shape[1], x.shape[1])), np.full(y.shape[1], 1e-2)
    exact, height = np.zeros(y.shape[1], dtype=bool), np.full(y.shape[1], -np.inf)
    todo = np.arange(y.shape[1])
    for _ in range(TURNS):
        now = y[:, todo]
        weight = 1.0 + wave @ theta[todo, width:].T
        made = Problem(
            _gram(pairs[0], weight**2, width),
            (line.T @ (weight * now)).T,
            np.einsum("tn,tn->n", now, now),
            np.full(len(todo), float(len(now))),
            design.precision[:width],
            np.zeros((len(todo), width)),
            design.frame.kinks,
            design.frame.recipe.tau,
        )
        found = solve(made)
        trend = line @ found.theta.T
        theta[todo, :width], exact[todo] = found.theta, found.exact
        cycles, s2[todo] = _ridge(pairs[1], wave, trend, now - trend, design.precision[width:], found.s2)
        theta[todo, width:] = cycles
        reached = _height(design, now, theta[todo], s2[todo])
        more = reached > height[todo] + GAIN
        height[todo] = reached
        todo = todo[more]
        if not len(todo):
            break
    return Solution(theta, s2, exact)


def _ridge(pairs: Array, wave: Array, trend: Array, rest: Array, precision: Array, s2: Array) -> tuple[Array, Array]:
    """Cycles (N, C) given the trend (T, N) and what it leaves (T, N), and the variance that goes with them."""
    width, points = wave.shape[1], np.full(trend.shape[1], float(len(rest)))
    if width == 0:
        return np.zeros((trend.shape[1], 0)), best_variance(np.einsum("tn,tn->n", rest, rest), points)
    gram, cross = _gram(pairs, trend**2, width), (wave.T @ (trend * rest)).T
    square = np.einsum("tn,tn->n", rest, rest)
    cycles = np.zeros(cross.shape)
    for _ in range(3):
        system = gram + s2[:, None, None] * np.diag(precision)
        cycles = np.linalg.solve(system, cross[:, :, None])[:, :, 0]
        ssr = square - np.einsum("np,np->n", cycles, 2 * cross - np.einsum("npq,nq->np", gram, cycles))
        s2 = best_variance(np.maximum(ssr, DIGITS * square), points)
    return cycles, s2


def _height(design: Design, y: Array, theta: Array, s2: Array) -> Array:
    """Log-posterior (N,), up to constants."""
    x, width = design.x, design.frame.kinks.stop
    yhat = (x[:, :width] @ theta[:, :width].T) * (1.0 + x[:, width:] @ theta[:, width:].T)
    ssr = ((y - yhat) ** 2).sum(axis=0)
    laplace = np.abs(theta[:, design.frame.kinks]).sum(axis=1) / design.frame.recipe.tau
    ridge = 0.5 * (theta**2) @ design.precision
    return np.asarray(-0.5 * len(y) * np.log(s2) - ssr / (2 * s2) - ridge - laplace - 2 * s2)


def _pairs(columns: Array) -> Array:
    """Products of all pairs of columns (T, C (C + 1) / 2)."""
    first, second = np.triu_indices(columns.shape[1])
    return np.asarray(columns[:, first] * columns[:, second])


def _gram(pairs: Array, weight: Array, width: int) -> Array:
    """Gram matrices (N, C, C) of columns weighted row by row: sum over t of weight (T, N) times each product."""
    flat = (pairs.T @ weight).T
    first, second = np.triu_indices(width)
    gram = np.empty((len(flat), width, width))
    gram[:, first, second] = flat
    gram[:, second, first] = flat
    return gram
