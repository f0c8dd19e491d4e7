"""Exhaustion dates on made-up disks: those that fill and those that only look so."""

import numpy as np
import pytest

from alerts.detect.capacity import exhaustion

DAY = 86400.0
HOURS = 30 * 24
SEEDS = range(4)
RNG = {seed: np.random.default_rng(seed) for seed in SEEDS}
T = np.arange(60 * 24) / 24.0  # two months: one of history, one to see what came


def curve(kind, seed):
    """Per cent used over two months of hours, without noise."""
    rng = np.random.default_rng([seed, len(kind), ord(kind[0])])
    slope, phase = rng.uniform(1.2, 2.5), rng.random()
    left = rng.uniform(6, 12)
    if kind == "linear":
        return 100 - slope * (30 + left - T)
    if kind == "growth began five days ago":
        return 100 - slope * (left + 5) + slope * np.maximum(T - 25, 0)
    if kind == "one clean-up":
        return 100 - slope * (30 + left - T) + 30 * (T < 25)
    if kind == "weekly season":
        return 100 - slope * (30 + left - T) + 3 * np.sin(2 * np.pi * (T / 7 + phase))
    if kind == "sawtooth on a rising floor":
        saw = slope * (T - 30) + 15 * ((T / 7 + phase) % 1)
        return saw + 100 - np.maximum.accumulate(saw)[round((30 + left) * 24)]
    if kind == "full much later":
        return 100 - rng.uniform(0.4, 1.0) * (30 + rng.uniform(30, 60) - T)
    if kind == "flat":
        return 85 + 0 * T
    if kind == "daily clean-up":
        return 60 + 15 * ((T + phase) % 1)
    if kind == "weekly clean-up":
        return 60 + 30 * ((T / 7 + phase) % 1)
    if kind == "ten-day clean-up":
        return 50 + 40 * ((T / 10 + phase) % 1)
    if kind == "checkpoints, last k kept":
        return 55 + 25 * ((T / 3 + phase) % 1)
    if kind == "one jump":
        return 60 + 25 * (T > 28)
    raise AssertionError(kind)


FILLING = [
    "linear",
    "growth began five days ago",
    "one clean-up",
    "weekly season",
    "sawtooth on a rising floor",
]
STEADY = [
    "full much later",
    "flat",
    "daily clean-up",
    "weekly clean-up",
    "ten-day clean-up",
    "checkpoints, last k kept",
    "one jump",
]


def judge(kind, seed, noise=0.3, horizon=14):
    truth = curve(kind, seed)
    known = truth[:HOURS] + noise * np.random.default_rng(seed).normal(size=HOURS)
    over = np.flatnonzero(truth[HOURS:] >= 100)
    return exhaustion(T[:HOURS] * DAY, known, 100.0, horizon * DAY), over[0] * 3600.0 if len(over) else None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", FILLING)
def test_what_fills_within_the_horizon_gets_a_date(kind, seed):
    found, true = judge(kind, seed)
    assert found.state == "ok"
    assert found.expected == pytest.approx(true, abs=2.5 * DAY)
    assert found.low is not None
    assert found.low <= found.expected
    assert found.high is None or found.high >= found.expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", STEADY)
def test_what_does_not_fill_gets_none(kind, seed):
    found, _ = judge(kind, seed)
    assert found.state in ("none", "disagree")
    assert found.expected is None


def test_a_clean_up_is_named_and_the_growth_without_it():
    found, _ = judge("one clean-up", 1)
    assert found.last_cleanup == pytest.approx(25 * DAY, abs=2 * 3600)
    assert 0.01 < found.rate_per_day < 0.03
    assert judge("weekly clean-up", 1)[0].method == "peaks"


def test_the_error_of_an_earlier_forecast_is_shown():
    found, _ = judge("linear", 2)
    assert found.error is not None
    assert found.error < 0.01


def test_too_little_history_is_no_answer():
    assert exhaustion(T[:20] * DAY, np.linspace(50, 60, 20), 100.0, 14 * DAY).state == "warming_up"
    assert exhaustion(T[:HOURS] * DAY, np.full(HOURS, np.nan), 100.0, 14 * DAY).state == "warming_up"


def test_a_full_disk_is_exhausted_now():
    found = exhaustion(T[:HOURS] * DAY, np.minimum(curve("linear", 0)[:HOURS] + 40, 100.0), 100.0, 14 * DAY)
    assert found.state == "ok"
    assert found.expected == 0


def test_gaps_are_no_news():
    values = curve("linear", 3)[:HOURS].copy()
    values[200:400] = np.nan
    assert exhaustion(T[:HOURS] * DAY, values, 100.0, 14 * DAY).state == "ok"


def test_a_nearly_empty_disk_is_not_announced():
    values = 1 + 0.8 * T[:HOURS]
    assert exhaustion(T[:HOURS] * DAY, values, 100.0, 200 * DAY).state == "none"
