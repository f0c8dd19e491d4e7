"""Made-up series with anomalies whose place is known, for benches and tests; nothing of the product uses them.

A series is a healthy shape with its own noise, on which a few anomalies are laid after the first quarter. Their size is
told in the shape's own noise, so that most can be seen by eye and some cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alerts.detect.bands import Array

DAY = 86400.0
START = 1_700_006_400.0 // DAY * DAY
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Sample:
    """Unix times, values and labels (R,) of one series, and what it is made of."""

    shape: str
    kinds: tuple[str, ...]
    times: Array
    values: Array
    labels: npt.NDArray[np.int64]


# --- healthy shapes: values (R,) at the days t (R,) ---


def _daily(t: Array, rng: Rng) -> Array:
    phase = rng.random()
    wave: Array = np.sin(2 * np.pi * (t + phase)) + rng.uniform(0, 0.5) * np.sin(4 * np.pi * (t + phase))
    return wave


def _office(t: Array, rng: Rng) -> Array:
    """Busy from eight to six on five days of the week."""
    weekday = np.floor(t + rng.integers(7)) % 7 < 5
    hour = (t % 1.0) * 24
    return np.asarray(weekday * np.clip(np.minimum(hour - 7, 19 - hour) / 2, 0, 1), dtype=np.float64)


def _walk(t: Array, rng: Rng, back: float) -> Array:
    """A walk that is drawn back to 0: deviation 1 in the long run."""
    noise, values, now = rng.normal(size=len(t)), np.empty(len(t)), 0.0
    for i, push in enumerate(noise.tolist()):
        now = (1 - back) * now + push * np.sqrt(2 * back)
        values[i] = now
    return values


def _plain(t: Array, rng: Rng) -> Any:
    return 100 + rng.uniform(1, 15) * rng.normal(size=len(t))


def _heavy(t: Array, rng: Rng) -> Any:
    return 100 + 3 * rng.standard_t(3, size=len(t))


def _lognormal(t: Array, rng: Rng) -> Any:
    return np.exp(rng.uniform(-2, 4) + 0.3 * _daily(t, rng) + rng.uniform(0.1, 0.5) * rng.normal(size=len(t)))


def _counts(t: Array, rng: Rng) -> Any:
    return rng.poisson(rng.uniform(2, 40) * np.exp(0.7 * _daily(t, rng)))


def _zeros(t: Array, rng: Rng) -> Any:
    return np.where(rng.random(len(t)) < rng.uniform(0.02, 0.2), rng.poisson(3, len(t)), 0)


def _cycle(t: Array, rng: Rng) -> Any:
    return 60 + 15 * _daily(t, rng) + rng.uniform(0.5, 5) * rng.normal(size=len(t))


def _week(t: Array, rng: Rng) -> Any:
    busy = _office(t, rng)
    return 20 + 80 * busy + (2 + 6 * busy) * rng.normal(size=len(t))


def _utilisation(t: Array, rng: Rng) -> Any:
    busy = np.repeat(rng.random(len(t) // 30 + 1) < 0.5, 30)[: len(t)]
    return np.clip(np.where(busy, 85 + 8 * rng.normal(size=len(t)), 4 * np.abs(rng.normal(size=len(t)))), 0, 100)


def _cpu(t: Array, rng: Rng) -> Any:
    bursts = (rng.random(len(t)) < 0.02) * rng.uniform(10, 40, len(t))
    return np.clip(rng.uniform(3, 40) + bursts + rng.uniform(0.3, 3) * rng.normal(size=len(t)), 0, 100)


def _temperature(t: Array, rng: Rng) -> Any:
    return 80 + 6 * _walk(t, rng, 0.01) + 0.4 * rng.normal(size=len(t))


def _wander(t: Array, rng: Rng) -> Any:
    return 1e9 * (5 + 0.02 * np.cumsum(rng.normal(size=len(t))))


def _trend(t: Array, rng: Rng) -> Any:
    return 40 + 30 * t / t[-1] + rng.uniform(0, 6) * _daily(t, rng) + rng.normal(size=len(t))


def _sawtooth(t: Array, rng: Rng) -> Any:
    points = rng.integers(20, 80)
    return 30 + 40 * (np.arange(len(t)) % points) / points + rng.normal(size=len(t))


def _steps(t: Array, rng: Rng) -> Any:
    """Replicas of a service: whole numbers that stay for hours."""
    return np.round(6 + 4 * _daily(t, rng) + 0.4 * _walk(t, rng, 0.05))


def _cron(t: Array, rng: Rng) -> Any:
    """A job every so many points: its peaks are healthy."""
    every = int(rng.integers(12, 30))
    return 10 + 50 * (np.arange(len(t)) % every < 2) * rng.uniform(0.7, 1.3, len(t)) + rng.normal(size=len(t))


def _constant(t: Array, rng: Rng) -> Any:
    return np.full(len(t), float(rng.integers(0, 50)))


SHAPES: dict[str, Callable[[Array, Rng], Any]] = {
    name[1:]: shape
    for name, shape in {
        f.__name__: f
        for f in (
            _plain, _heavy, _lognormal, _counts, _zeros, _cycle, _week, _utilisation, _cpu, _temperature, _wander,
            _trend, _sawtooth, _steps, _cron, _constant,
        )
    }.items()
}  # fmt: skip

GRIDS = ((60.0, 5000), (300.0, 4032), (300.0, 600), (1800.0, 2000), (3600.0, 1500), (3600.0, 500), (DAY, 600))
"""Steps and numbers of points."""

ANOMALIES = ("spike", "dip", "raised", "lowered", "restless", "stuck", "no_peak", "ramp", "moved")


def _lay(kind: str, values: Array, at: int, length: int, size: float, per_day: int) -> slice:
    """Change `values` in place; the slice is what to label. `size` is in the values' unit."""
    end = min(at + length, len(values))
    span = np.arange(end - at)
    if kind in ("spike", "dip"):
        end = min(at + 1 + length % 3, len(values))
        values[at:end] += size if kind == "spike" else -size
    elif kind in ("raised", "lowered"):
        values[at:end] += size if kind == "raised" else -size
    elif kind == "restless":
        rng = np.random.default_rng(at)
        values[at:end] += size * rng.choice([-1.0, 1.0], len(span)) * rng.random(len(span))
    elif kind == "stuck":
        values[at:end] = values[at]
    elif kind == "no_peak":
        end = min(at + max(min(per_day, length), 2), len(values))
        values[at:end] = float(np.quantile(values, 0.1))
    elif kind == "ramp":
        values[at:end] += size * (span + 1) / len(span)
    elif kind == "moved":
        values[at:] += size
    return slice(at, end)


def draw(shape: str, step: float, points: int, seed: int) -> Sample:
    """One series; the same arguments give the same one."""
    rng = np.random.default_rng([seed, sorted(SHAPES).index(shape), round(step), points])
    t: Array = np.asarray(np.arange(points) * step / DAY, dtype=np.float64)
    values: Array = np.asarray(SHAPES[shape](t, rng), dtype=np.float64)
    labels = np.zeros(points, dtype=np.int64)
    per_day = max(round(DAY / step), 7)
    changes = np.abs(values - np.median(values))
    # The noise is what one point differs from those beside it, yet no less than a hundredth of the whole range.
    noise = 1.4826 * float(np.median(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]))) / 2.4
    noise = max(
        noise, 0.01 * float(np.ptp(values)), 0.02 * float(np.median(np.abs(values))), 0.5 * (changes.max() == 0)
    )
    laid: list[str] = []
    number = int(rng.integers(0, 4)) if points < 1000 else int(rng.integers(1, 5))
    places = np.sort(rng.choice(np.arange(12), number, replace=False)) / 12
    for place in places.tolist():
        at = int(points * (0.25 + 0.74 * place))
        kind = str(rng.choice(ANOMALIES))
        length = int(np.clip(rng.lognormal(np.log(0.012 * points), 0.7), 4, 0.05 * points))
        size = noise * float(rng.uniform(4, 20)) if kind in ("spike", "dip") else noise * float(rng.uniform(3, 12))
        if kind == "stuck" and length < 12:
            kind = "spike"
        before = values.copy()
        told = _lay(kind, values, at, length, size, per_day)
        if np.array_equal(before, values):
            continue
        labels[told] = 1
        laid.append(kind)
    if shape in ("utilisation", "cpu"):
        values = np.clip(values, 0, 100)
    elif shape in ("counts", "zeros", "lognormal", "steps"):
        values = np.maximum(values, 0)
    return Sample(shape, tuple(laid), np.asarray(START + step * np.arange(points), dtype=np.float64), values, labels)


def every(seeds: range) -> list[Sample]:
    """Every shape on every grid, once a seed."""
    return [draw(shape, step, points, seed) for seed in seeds for shape in sorted(SHAPES) for step, points in GRIDS]
