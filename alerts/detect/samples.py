"""Made-up series of the kinds that a GPU fleet has, for benches and tests; nothing of the product uses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

KINDS = (
    "noise",
    "daily",
    "weekly",
    "level_shift",
    "spikes",
    "jobs",
    "random_walk",
    "sawtooth",
    "bytes",
    "latency",
    "growing",
    "mostly_zero",
)


HARD = (
    "square",
    "square_clean",
    "two_valued",
    "two_valued_rare",
    "one_spike",
    "one_change",
    "line",
    "line_with_noise",
    "sine",
    "bent_line",
    "sawtooth_clean",
    "counter",
    "counter_reset",
    "lognormal",
    "cauchy",
    "steep_walk",
    "negative",
    "around_zero",
    "rounded",
    "saturated",
    "regimes",
    "noisier",
    "huge_outlier",
    "exponential",
    "clean_ups",
    "near_constant",
    "single_precision",
    "tiny",
    "terabytes",
    "huge_offset",
)
"""Kinds that a fit may stumble over: perfect, degenerate, heavy-tailed, far from 0."""

GAPS = ("none", "random", "lossy", "hours", "days", "days_at_end", "first_week", "late_start", "ends_early", "comb")


def missing(gap: str, points: int, step: float = 300.0, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which of `points` a series with such gaps misses."""
    rng = np.random.default_rng([seed, GAPS.index(gap), 7])
    row, day = np.arange(points), round(86400.0 / step)
    begin = int(rng.integers(points // 10, points // 2))
    found: npt.NDArray[np.bool_] = {
        "none": row < 0,
        "random": rng.random(points) < 0.05,
        "lossy": rng.random(points) < 0.4,
        "hours": (row >= begin) & (row < begin + day // 4),
        "days": (row >= begin) & (row < begin + 2 * day),
        "days_at_end": (row >= points - 2 * day - day // 4) & (row < points - day // 4),
        "first_week": row < min(7 * day, points // 2),
        "late_start": row < begin,
        "ends_early": row >= points - day // 6,
        "comb": row % 3 > 0,
    }[gap]
    return found


def sample(kind: str, points: int, step: float = 300.0, seed: int = 0) -> Array:
    """`points` values of a series of that kind, `step` seconds apart; the same seed gives the same values."""
    draw = _draw_hard if kind in HARD else _draw
    return np.asarray(draw(kind, points, step, seed), dtype=np.float64)


def _draw(kind: str, points: int, step: float, seed: int) -> Any:
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    t = np.arange(points) * step / 86400.0
    day, week = np.sin(2 * np.pi * (t + rng.random())), np.sin(2 * np.pi * (t / 7 + rng.random()))
    noise: npt.NDArray[np.float64] = rng.normal(size=points)
    if kind == "noise":
        return 50 + 5 * noise
    if kind == "daily":
        return 60 + 15 * day + 3 * noise
    if kind == "weekly":
        return 60 + 10 * day + 12 * week + 3 * noise
    if kind == "level_shift":
        return 40 + 5 * day + 2 * noise + 20 * (t > t[-1] * rng.uniform(0.3, 0.9))
    if kind == "spikes":
        return 20 + noise + 60 * (rng.random(points) < 0.005)
    if kind == "jobs":
        busy = np.repeat(rng.random(points // 48 + 1) < 0.6, 48)[:points]
        return np.where(busy, 92 + 2 * noise, np.abs(noise))
    if kind == "random_walk":
        return 100 + np.cumsum(0.3 * noise)
    if kind == "sawtooth":
        return 55 + 25 * ((t / 3 + rng.random()) % 1.0) + 0.3 * noise
    if kind == "bytes":
        return 1e9 * (3 + 0.5 * day + 0.1 * noise)
    if kind == "latency":
        return np.exp(-1.6 + 0.3 * day + 0.25 * noise)
    if kind == "growing":
        return 40 + t * rng.uniform(0.5, 2) + 0.3 * noise
    if kind == "mostly_zero":
        return np.where(rng.random(points) < 0.03, rng.poisson(3, points), 0)
    raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")


def _draw_hard(kind: str, points: int, step: float, seed: int) -> Any:
    rng = np.random.default_rng([seed, HARD.index(kind), 1])
    row, noise = np.arange(points), rng.normal(size=points)
    t = row * step / 86400.0
    day, square = np.sin(2 * np.pi * (t + rng.random())), np.where((row // 100) % 2, 90.0, 5.0)
    bend = points * rng.uniform(0.3, 0.7)
    counter = np.cumsum(rng.poisson(5, points)).astype(np.float64)
    made: dict[str, Any] = {
        "square": square + 0.1 * noise,
        "square_clean": square,
        "two_valued": rng.random(points) < 0.3,
        "two_valued_rare": (rng.random(points) < 0.001) | (row == 7),
        "one_spike": row == points // 2,
        "one_change": np.where(row < bend, 5.0, 7.0),
        "line": 3 + 0.01 * row,
        "line_with_noise": 3 + 0.01 * row + 1e-6 * noise,
        "sine": 10 + day,
        "bent_line": 10 + 3 * np.maximum(row - bend, 0) * step / 86400.0,
        "sawtooth_clean": (t / 3) % 1.0,
        "counter": counter,
        "counter_reset": counter - np.where(row < bend, 0.0, counter[int(bend)]),
        "lognormal": np.exp(2 * noise),
        "cauchy": rng.standard_cauchy(points),
        "steep_walk": np.cumsum(noise),
        "negative": -50 + 5 * day + noise,
        "around_zero": day + noise,
        "rounded": np.round(50 + 0.6 * noise),
        "saturated": np.clip(98 + 5 * noise, 0, 100),
        "regimes": np.repeat(rng.normal(50, 20, points // 200 + 1), 200)[:points] + noise,
        "noisier": 50 + noise * np.where(row < bend, 0.1, 10.0),
        "huge_outlier": np.where(row == points // 2, 5e7, 50 + noise),
        "exponential": np.exp(10 * row / points) + 0.1 * noise,
        "clean_ups": 80 + 0.7 * t - np.where(row < bend, 0.0, 30.0) + 0.1 * noise,
        "near_constant": 100 + 1e-7 * noise,
        "single_precision": (100 + 1e-5 * noise).astype(np.float32),
        "tiny": 1e-9 * (5 + day + 0.3 * noise),
        "terabytes": 1e12 * (3 + 0.5 * day + 0.1 * noise),
        "huge_offset": 1e9 + day + 0.1 * noise,
    }
    return made[kind]
