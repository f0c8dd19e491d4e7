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


def sample(kind: str, points: int, step: float = 300.0, seed: int = 0) -> Array:
    """`points` values of a series of that kind, `step` seconds apart; the same seed gives the same values."""
    return np.asarray(_draw(kind, points, step, seed), dtype=np.float64)


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
